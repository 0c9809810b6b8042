using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>Adds to float32 sums what may be computed in another type, a part at a time: no second buffer holds all of it.</summary>
internal static class GradientSum
{
    /// <summary>sum += part</summary>
    internal static void Add(Tensor sum, Tensor part)
    {
        if (part.dtype == ScalarType.BFloat16 && sum.device_type == DeviceType.CPU) CpuKernels.Of(part).AddTo(sum, part.contiguous());
        else sum.add_(part);
    }

    /// <summary>sum += a b. [m, n], [m, k], [k, n]</summary>
    internal static void AddProduct(Tensor sum, Tensor a, Tensor b)
    {
        if (a.dtype == sum.dtype)
        {
            sum.addmm_(a, b);
            return;
        }

        using var product = a.mm(b);
        Add(sum, product);
    }

    /// <summary>sum[rows[i]] += part[i]; rows may come several times. [N, D], [n] of int64, [n, D]</summary>
    internal static void AddRows(Tensor sum, Tensor rows, Tensor part)
    {
        if (CpuKernels.FitRowSum(sum, part)) CpuKernels.Of(sum).AddRows(sum, rows, part);
        else sum.index_add_(0, rows, part.to(sum.dtype), 1);
    }
}

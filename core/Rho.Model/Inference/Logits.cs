using Rho.Model.Inference.Kernels;

namespace Rho.Model.Inference;

/// <summary>Reductions over one position's logits.</summary>
public static class Logits
{
    /// <summary>The most likely token; the first, where several are.</summary>
    public static int IndexOfMax(ReadOnlySpan<float> logits) => VectorKernels.IndexOfMax(logits);

    /// <summary>ln sum exp(logit), nats.</summary>
    public static double LogSumExp(ReadOnlySpan<float> logits) => VectorKernels.LogSumExp(logits);

    /// <summary>sum exp((logit - shift) * scale).</summary>
    public static double SumOfExp(ReadOnlySpan<float> logits, float shift, float scale) => VectorKernels.SumOfExp(logits, shift, scale);

    /// <summary>Replaces every logit by exp((logit - shift) * scale).</summary>
    public static void Exp(Span<float> logits, float shift, float scale) => VectorKernels.Exp(logits, shift, scale);
}

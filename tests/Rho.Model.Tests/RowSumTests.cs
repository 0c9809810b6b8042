using static TorchSharp.torch;

namespace Rho.Model.Tests;

public sealed class RowSumTests
{
    [Theory]
    [InlineData(ScalarType.Float32, ScalarType.Float32, 16)]
    [InlineData(ScalarType.Float32, ScalarType.BFloat16, 80)]
    [InlineData(ScalarType.BFloat16, ScalarType.Float32, 128)]
    [InlineData(ScalarType.BFloat16, ScalarType.BFloat16, 208)]
    public void Add_RowsThatRepeat_AddsThemInOrder(ScalarType sumType, ScalarType partType, int width)
    {
        manual_seed(2);
        using var scope = NewDisposeScope();
        var (sum, part) = (randn([50, width]).to(sumType), randn([300, width]).to(partType));
        var rows = randint(50, [300], ScalarType.Int64);
        var expected = sum.clone();
        for (var i = 0; i < 300; i++)
        {
            var row = expected.select(0, rows[i].item<long>());
            row.copy_(row.to(ScalarType.Float32).add(part[i].to(ScalarType.Float32)));
        }

        Assert.True(CpuKernels.FitRowSum(sum, part));
        CpuKernels.Of(sum).AddRows(sum, rows, part);
        Assert.True(sum.bytes.SequenceEqual(expected.bytes));
    }

    [Fact]
    public void Fits_WidthsOfNoWholeRegisterAndOtherLayouts_Not()
    {
        using var scope = NewDisposeScope();
        Assert.False(CpuKernels.FitRowSum(zeros(3, 24), zeros(3, 24)));
        Assert.False(CpuKernels.FitRowSum(zeros(16, 32).t(), zeros(32, 16)));
    }
}

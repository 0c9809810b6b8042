using Rho.TestSupport;

namespace Rho.Model.Inference.Tests;

public sealed class OtherProcessorTests
{
    [Fact]
    public Task Golden_WithAvx2Alone_AreMet() => OtherProcessors.PassAsync(OtherProcessors.Avx2, "-method", "*EqualPyTorch*");

    [Theory, MemberData(nameof(OtherProcessors.Limits), MemberType = typeof(OtherProcessors))]
    [Trait("Category", "Slow")]
    public Task All_WithLess_Pass(string limit) => OtherProcessors.PassAsync(limit);
}

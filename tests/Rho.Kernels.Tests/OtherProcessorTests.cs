using Rho.TestSupport;

namespace Rho.Kernels.Tests;

public sealed class OtherProcessorTests
{
    [Fact]
    public Task All_WithAvx2Alone_Pass() => OtherProcessors.PassAsync(OtherProcessors.Avx2);
}

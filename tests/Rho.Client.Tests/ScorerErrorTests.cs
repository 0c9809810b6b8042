using Google.Protobuf.WellKnownTypes;
using Google.Rpc;
using Grpc.Core;

namespace Rho.Client.Tests;

public class ScorerErrorTests
{
    [Theory]
    [InlineData(1.5, 1.5)]
    [InlineData(3600, 60)]
    [InlineData(-1, 0)]
    public void RetryInfo_SaysWhenToTryAgain_WithinAMinute(double asked, double expected)
    {
        var error = new Google.Rpc.Status
        {
            Code = (int)Code.ResourceExhausted,
            Details = { Any.Pack(new RetryInfo { RetryDelay = Duration.FromTimeSpan(TimeSpan.FromSeconds(asked)) }) },
        }.ToRpcException();
        Assert.Equal(TimeSpan.FromSeconds(expected), Translate(error).RetryAfter);
    }

    [Fact]
    public void WithoutReadableDetails_NoTimeIsGiven()
    {
        Assert.Null(Translate(new RpcException(new Grpc.Core.Status(StatusCode.Unavailable, ""))).RetryAfter);
        Assert.Null(Translate(new RpcException(new Grpc.Core.Status(StatusCode.Unavailable, ""), new Metadata { { "grpc-status-details-bin", [0xff] } })).RetryAfter);
    }

    private static ReplicaFailedException Translate(RpcException error) =>
        Assert.IsType<ReplicaFailedException>(ScorerErrors.Translate("scorer:1", error, CancellationToken.None));
}

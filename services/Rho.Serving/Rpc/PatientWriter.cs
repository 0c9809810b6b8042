using Grpc.Core;

namespace Rho.Serving.Rpc;

/// <summary>Writes to a client's stream, and gives up on a client that reads nothing for a set time.</summary>
internal sealed class PatientWriter<T>(IServerStreamWriter<T> stream, TimeSpan patience, CancellationToken cancellation)
{
    public async Task WriteAsync(T message)
    {
        var write = stream.WriteAsync(message, cancellation);
        if (write.IsCompletedSuccessfully) return;
        try
        {
            await write.WaitAsync(patience, cancellation);
        }
        catch (TimeoutException)
        {
            throw new RpcException(new Status(StatusCode.Aborted, $"the client read nothing for {patience.TotalSeconds} s"));
        }
    }
}

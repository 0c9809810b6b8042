using Google.Rpc;
using Grpc.Core;

namespace Rho.Client;

/// <summary>A scorer failed in a way that another one, or the same one later, may not.</summary>
internal sealed class ReplicaFailedException(string address, string reason, TimeSpan? retryAfter, bool isInternal, Exception inner)
    : Exception($"{address}: {reason}", inner)
{
    /// <summary>What the scorer asked for before a retry.</summary>
    public TimeSpan? RetryAfter { get; } = retryAfter;

    /// <summary>Whether the scorer itself broke; that is retried a few times only.</summary>
    public bool IsInternal { get; } = isInternal;
}

/// <summary>From gRPC statuses to what the caller can do about them.</summary>
internal static class ScorerErrors
{
    /// <summary>Translates what a call to a scorer threw. Cancellation by the caller stays what it is.</summary>
    public static Exception Translate(string address, Exception exception, CancellationToken cancellation)
    {
        if (cancellation.IsCancellationRequested) return new OperationCanceledException("the call was cancelled", exception, cancellation);
        return exception switch
        {
            RpcException rpc => Translate(address, rpc),
            TimeoutException or OperationCanceledException => new ReplicaFailedException(address, $"no answer: {exception.Message}", retryAfter: null, isInternal: false, exception),
            _ => exception,
        };
    }

    /// <summary>Sends a message. What a connection that ends under it throws is a call that failed, no fault of the caller's data.</summary>
    /// <exception cref="RpcException">The call has ended or its connection has.</exception>
    public static async Task SendAsync<T>(this IClientStreamWriter<T> requests, T message, CancellationToken cancellation)
    {
        try
        {
            await requests.WriteAsync(message, cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or HttpRequestException)
        {
            throw new RpcException(new Grpc.Core.Status(StatusCode.Unavailable, e.Message, e));
        }
    }

    private static Exception Translate(string address, RpcException exception)
    {
        var detail = exception.Status.Detail;
        switch (exception.StatusCode)
        {
            case StatusCode.FailedPrecondition:
                return new MismatchException($"scorer {address}: {detail}");
            case StatusCode.DataLoss:
                return new CorruptDataException($"scorer {address}: {detail}");
            case StatusCode.Unauthenticated:
                return new UnauthenticatedException($"scorer {address}: {detail}");
            case StatusCode.Unimplemented:
                return new RhoException($"{address} is not a Rho scorer: {detail}");
            case StatusCode.InvalidArgument or StatusCode.NotFound or StatusCode.OutOfRange or StatusCode.PermissionDenied:
                return new RhoException($"scorer {address}: {detail}");
            default:
                var reason = Innermost(exception) is System.Net.Sockets.SocketException socket
                    ? $"cannot be reached: {socket.Message}"
                    : $"{exception.StatusCode}: {detail}";
                // A connection that ends under a call is INTERNAL too, by the client's own account.
                var isInternal = exception.StatusCode is StatusCode.Internal or StatusCode.Unknown && exception.Status.DebugException is not (IOException or HttpRequestException);
                return new ReplicaFailedException(address, reason, RetryAfter(exception), isInternal, exception);
        }
    }

    private static TimeSpan? RetryAfter(RpcException exception) =>
        exception.Trailers.GetRpcStatus(ignoreParseError: true)?.GetDetail<RetryInfo>()?.RetryDelay is { } delay ? TimeSpan.FromSeconds(Math.Clamp(delay.Seconds + delay.Nanos / 1e9, 0, 60)) : null;

    private static Exception Innermost(Exception exception)
    {
        while (exception.InnerException is { } inner) exception = inner;
        return exception is RpcException { Status.DebugException: { } debug } ? Innermost(debug) : exception;
    }
}

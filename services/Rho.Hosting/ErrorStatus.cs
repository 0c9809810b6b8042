using Google.Protobuf;
using Grpc.Core;
using Microsoft.AspNetCore.Http;

namespace Rho.Hosting;

/// <summary>The one table from exceptions to statuses, for gRPC and HTTP.</summary>
public static class ErrorStatus
{
    internal const string Malformed = "the message is malformed: it cannot be decoded as the method's request";

    /// <summary>The gRPC code that an exception ends a call with.</summary>
    public static StatusCode ToGrpc(Exception exception) => exception switch
    {
        RpcException rpc => rpc.StatusCode,
        NotFoundException => StatusCode.NotFound,
        MismatchException => StatusCode.FailedPrecondition,
        CorruptDataException => StatusCode.DataLoss,
        OverloadedException => StatusCode.ResourceExhausted,
        UnavailableException => StatusCode.Unavailable,
        UnauthenticatedException => StatusCode.Unauthenticated,
        RhoException or InvalidProtocolBufferException => StatusCode.InvalidArgument,
        OperationCanceledException => StatusCode.Cancelled,
        _ => StatusCode.Internal,
    };

    /// <summary>The HTTP status that an exception ends a request with.</summary>
    public static int ToHttp(Exception exception) => exception switch
    {
        BadHttpRequestException bad => bad.StatusCode,
        NotFoundException => StatusCodes.Status404NotFound,
        MismatchException => StatusCodes.Status409Conflict,
        OverloadedException => StatusCodes.Status429TooManyRequests,
        UnavailableException => StatusCodes.Status503ServiceUnavailable,
        UnauthenticatedException => StatusCodes.Status401Unauthorized,
        RhoException => StatusCodes.Status400BadRequest,
        OperationCanceledException => StatusCodes.Status499ClientClosedRequest,
        _ => StatusCodes.Status500InternalServerError,
    };

    /// <summary>What the caller is told: the message of an error that the caller can put right, and nothing of others.</summary>
    public static string ToMessage(Exception exception) => exception switch
    {
        RhoException or BadHttpRequestException => exception.Message,
        RpcException rpc => rpc.Status.Detail,
        InvalidProtocolBufferException => Malformed,
        OperationCanceledException => "the call was cancelled",
        _ => "internal error; the server's log has the details",
    };

    /// <summary>Seconds to wait before a retry, as retry-after wants them: whole, at least 1.</summary>
    internal static long RetryAfterSeconds(OverloadedException exception) => Math.Max(1, (long)Math.Ceiling(exception.RetryAfter.TotalSeconds));
}

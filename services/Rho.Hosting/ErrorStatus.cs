using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using Google.Rpc;
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

    /// <summary>What ends a stream because the service stops: UNAVAILABLE, with the reason STOPPING and what helps to go on elsewhere.</summary>
    public static RpcException Stopping(string message, params ReadOnlySpan<(string Name, string Value)> metadata)
    {
        var info = new ErrorInfo { Domain = "rho", Reason = "STOPPING" };
        foreach (var (name, value) in metadata) info.Metadata.Add(name, value);
        return Rpc(StatusCode.Unavailable, message, info);
    }

    /// <summary>What ends a gRPC call: code, message and, where a program can do something about it, details of google.rpc.</summary>
    internal static RpcException ToRpc(Exception exception)
    {
        if (Details(exception) is not { } details) return new RpcException(new Grpc.Core.Status(ToGrpc(exception), ToMessage(exception)));
        var error = Rpc(ToGrpc(exception), ToMessage(exception), details);
        if (exception is OverloadedException overloaded)
        {
            // For clients without google.rpc's messages, and for gRPC's own retries.
            error.Trailers.Add("retry-after", RetryAfterSeconds(overloaded).ToString());
            error.Trailers.Add("grpc-retry-pushback-ms", ((long)overloaded.RetryAfter.TotalMilliseconds).ToString());
        }

        return error;
    }

    private static RpcException Rpc(StatusCode code, string message, IMessage details) =>
        new Google.Rpc.Status { Code = (int)code, Message = message, Details = { Any.Pack(details) } }.ToRpcException();

    private static IMessage? Details(Exception exception) => exception switch
    {
        OverloadedException overloaded => new RetryInfo { RetryDelay = Duration.FromTimeSpan(overloaded.RetryAfter) },
        InvalidFieldException invalid => new BadRequest { FieldViolations = { new BadRequest.Types.FieldViolation { Field = invalid.Field, Description = invalid.Message } } },
        ContextLengthException => new ErrorInfo { Domain = "rho", Reason = "CONTEXT_LENGTH_EXCEEDED" },
        _ => null,
    };

    /// <summary>Seconds to wait before a retry, as retry-after wants them: whole, at least 1.</summary>
    internal static long RetryAfterSeconds(OverloadedException exception) => Math.Max(1, (long)Math.Ceiling(exception.RetryAfter.TotalSeconds));
}

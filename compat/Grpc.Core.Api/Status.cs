namespace Grpc.Core;

/// <summary>The status codes of gRPC, with their numbers on the wire.</summary>
public enum StatusCode
{
    /// <summary>The call succeeded.</summary>
    OK = 0,

    /// <summary>The call was cancelled, mostly by its caller.</summary>
    Cancelled = 1,

    /// <summary>An error without a better code, such as a status from another domain.</summary>
    Unknown = 2,

    /// <summary>The caller sent something that no state of the server would accept.</summary>
    InvalidArgument = 3,

    /// <summary>The deadline passed before the call ended.</summary>
    DeadlineExceeded = 4,

    /// <summary>What was asked for does not exist.</summary>
    NotFound = 5,

    /// <summary>What was to be made exists already.</summary>
    AlreadyExists = 6,

    /// <summary>The caller is known, and may not do this.</summary>
    PermissionDenied = 7,

    /// <summary>A quota, a queue or memory is used up.</summary>
    ResourceExhausted = 8,

    /// <summary>The server's state does not allow this; the same call works once the state is right.</summary>
    FailedPrecondition = 9,

    /// <summary>A concurrent change got in the way.</summary>
    Aborted = 10,

    /// <summary>A position past the valid range.</summary>
    OutOfRange = 11,

    /// <summary>The server does not offer this method.</summary>
    Unimplemented = 12,

    /// <summary>The server is broken.</summary>
    Internal = 13,

    /// <summary>The server cannot be reached or does not serve now; trying again may help.</summary>
    Unavailable = 14,

    /// <summary>Data was lost or corrupted for good.</summary>
    DataLoss = 15,

    /// <summary>The caller is not known.</summary>
    Unauthenticated = 16,
}

/// <summary>How a call ended: a code and what it says to people.</summary>
public struct Status(StatusCode statusCode, string detail, Exception? debugException)
{
    /// <summary>OK, without words.</summary>
    public static readonly Status DefaultSuccess = new(StatusCode.OK, "");

    /// <summary>Cancelled, without words.</summary>
    public static readonly Status DefaultCancelled = new(StatusCode.Cancelled, "");

    /// <summary>A status without a local cause.</summary>
    public Status(StatusCode statusCode, string detail)
        : this(statusCode, detail, null)
    {
    }

    /// <summary>The code.</summary>
    public StatusCode StatusCode { get; } = statusCode;

    /// <summary>The message that travels with the code.</summary>
    public string Detail { get; } = detail;

    /// <summary>The local exception behind the status; it never travels.</summary>
    public Exception? DebugException { get; } = debugException;

    /// <inheritdoc/>
    public override string ToString() => DebugException is null
        ? $"Status(StatusCode=\"{StatusCode}\", Detail=\"{Detail}\")"
        : $"Status(StatusCode=\"{StatusCode}\", Detail=\"{Detail}\", DebugException=\"{DebugException.GetType()}: {DebugException.Message}\")";
}

/// <summary>A call ended with a status other than OK; thrown by a server method, it ends the call with that status.</summary>
public class RpcException : Exception
{
    /// <summary>An exception whose message is the status.</summary>
    public RpcException(Status status)
        : this(status, Metadata.Empty, status.ToString())
    {
    }

    /// <summary>An exception with a message of its own.</summary>
    public RpcException(Status status, string message)
        : this(status, Metadata.Empty, message)
    {
    }

    /// <summary>An exception that carries response trailers.</summary>
    public RpcException(Status status, Metadata trailers)
        : this(status, trailers, status.ToString())
    {
    }

    /// <summary>An exception that carries response trailers and a message of its own.</summary>
    public RpcException(Status status, Metadata trailers, string message)
        : base(message, status.DebugException)
    {
        ArgumentNullException.ThrowIfNull(trailers);
        Status = status;
        Trailers = trailers;
    }

    /// <summary>How the call ended.</summary>
    public Status Status { get; }

    /// <summary>The code of <see cref="Status"/>.</summary>
    public StatusCode StatusCode => Status.StatusCode;

    /// <summary>The trailers received with the status, or to be sent with it.</summary>
    public Metadata Trailers { get; }
}

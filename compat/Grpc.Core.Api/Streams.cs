using Grpc.Core.Utils;

namespace Grpc.Core;

/// <summary>Messages that arrive one after another.</summary>
public interface IAsyncStreamReader<out T>
{
    /// <summary>The message that the last <see cref="MoveNext"/> reached.</summary>
    T Current { get; }

    /// <summary>Goes to the next message; false at the end. One call at a time.</summary>
    Task<bool> MoveNext(CancellationToken cancellationToken);
}

/// <summary>Messages that leave one after another.</summary>
public interface IAsyncStreamWriter<in T>
{
    /// <summary>How the messages that follow are written; null for the call's default.</summary>
    WriteOptions? WriteOptions { get; set; }

    /// <summary>Writes a message; done when the transport has taken it. One call at a time.</summary>
    Task WriteAsync(T message);

    /// <summary>Writes a message; when the token is cancelled first, the write is given up.</summary>
    Task WriteAsync(T message, CancellationToken cancellationToken) => cancellationToken.CanBeCanceled
        ? throw new NotSupportedException("Cancellation of stream writes is not supported by this gRPC implementation.")
        : WriteAsync(message);
}

/// <summary>The requests that a client writes.</summary>
public interface IClientStreamWriter<in T> : IAsyncStreamWriter<T>
{
    /// <summary>Says that no request follows.</summary>
    Task CompleteAsync();
}

/// <summary>The responses that a server method writes; the stream ends when the method returns.</summary>
public interface IServerStreamWriter<in T> : IAsyncStreamWriter<T>;

/// <summary>What goes for every stream reader.</summary>
public static class AsyncStreamReaderExtensions
{
    /// <summary>Goes to the next message; false at the end.</summary>
    public static Task<bool> MoveNext<T>(this IAsyncStreamReader<T> streamReader)
        where T : class =>
        GrpcPreconditions.CheckNotNull(streamReader, nameof(streamReader)).MoveNext(CancellationToken.None);
}

/// <summary>Hints for one write.</summary>
[Flags]
public enum WriteFlags
{
    /// <summary>More follows soon: the message may wait in a buffer.</summary>
    BufferHint = 0x1,

    /// <summary>The message is not worth compressing.</summary>
    NoCompress = 0x2,
}

/// <summary>How messages are written.</summary>
public class WriteOptions(WriteFlags flags = default)
{
    /// <summary>No hints.</summary>
    public static readonly WriteOptions Default = new();

    /// <summary>The hints.</summary>
    public WriteFlags Flags { get; } = flags;
}

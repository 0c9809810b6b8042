namespace Grpc.Core;

/// <summary>What a client says about one call.</summary>
public struct CallOptions(
    Metadata? headers = null,
    DateTime? deadline = null,
    CancellationToken cancellationToken = default,
    WriteOptions? writeOptions = null,
    ContextPropagationToken? propagationToken = null,
    CallCredentials? credentials = null)
{
    /// <summary>The headers to send.</summary>
    public Metadata? Headers { readonly get; private set; } = headers;

    /// <summary>When the call fails with DEADLINE_EXCEEDED, UTC; null for never.</summary>
    public DateTime? Deadline { readonly get; private set; } = deadline;

    /// <summary>Cancels the call.</summary>
    public CancellationToken CancellationToken { readonly get; private set; } = cancellationToken;

    /// <summary>How requests are written.</summary>
    public WriteOptions? WriteOptions { readonly get; private set; } = writeOptions;

    /// <summary>The call on whose behalf this one is made.</summary>
    public ContextPropagationToken? PropagationToken { readonly get; private set; } = propagationToken;

    /// <summary>Credentials for this call alone.</summary>
    public CallCredentials? Credentials { readonly get; private set; } = credentials;

    /// <summary>Whether the call waits for a connection instead of failing while there is none.</summary>
    public bool IsWaitForReady { readonly get; private set; }

    /// <summary>The same with other headers.</summary>
    public CallOptions WithHeaders(Metadata headers) => this with { Headers = headers };

    /// <summary>The same with another deadline (UTC).</summary>
    public CallOptions WithDeadline(DateTime deadline) => this with { Deadline = deadline };

    /// <summary>The same with another token.</summary>
    public CallOptions WithCancellationToken(CancellationToken cancellationToken) => this with { CancellationToken = cancellationToken };

    /// <summary>The same with other write options.</summary>
    public CallOptions WithWriteOptions(WriteOptions writeOptions) => this with { WriteOptions = writeOptions };

    /// <summary>The same on behalf of another call.</summary>
    public CallOptions WithPropagationToken(ContextPropagationToken propagationToken) => this with { PropagationToken = propagationToken };

    /// <summary>The same with other credentials.</summary>
    public CallOptions WithCredentials(CallCredentials credentials) => this with { Credentials = credentials };

    /// <summary>The same, waiting for a connection or not.</summary>
    public CallOptions WithWaitForReady(bool waitForReady = true) => this with { IsWaitForReady = waitForReady };
}

/// <summary>What a call made on behalf of another takes over from it.</summary>
public class ContextPropagationOptions(bool propagateDeadline = true, bool propagateCancellation = true)
{
    /// <summary>Deadline and cancellation both.</summary>
    public static readonly ContextPropagationOptions Default = new();

    /// <summary>Whether the deadline is taken over.</summary>
    public bool IsPropagateDeadline { get; } = propagateDeadline;

    /// <summary>Whether cancellation is taken over.</summary>
    public bool IsPropagateCancellation { get; } = propagateCancellation;
}

/// <summary>Stands for a call on a server, so that calls on its behalf take over its deadline and cancellation.</summary>
public abstract class ContextPropagationToken
{
    internal ContextPropagationToken()
    {
    }
}

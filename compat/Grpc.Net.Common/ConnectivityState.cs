namespace Grpc.Core;

/// <summary>Where a channel stands with its server (gRPC connectivity semantics).</summary>
public enum ConnectivityState
{
    /// <summary>Not connected, and not trying until a call asks for it.</summary>
    Idle,

    /// <summary>Resolving the name, opening the connection or shaking hands.</summary>
    Connecting,

    /// <summary>Connected.</summary>
    Ready,

    /// <summary>Failed; the channel tries again after a back-off.</summary>
    TransientFailure,

    /// <summary>Closed for good.</summary>
    Shutdown,
}

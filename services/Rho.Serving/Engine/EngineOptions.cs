using System.ComponentModel;

namespace Rho.Serving.Engine;

/// <summary>Bounds of one model's engine.</summary>
public sealed record EngineOptions
{
    /// <summary>Sequences that run at once. Default 64.</summary>
    public int MaxSequences { get; init; } = 64;

    /// <summary>Tokens of one step at most, prompts and continuations together. Default 512.</summary>
    public int MaxStepTokens { get; init; } = 512;

    /// <summary>While continuations run, pieces of prompts are cut so that a step takes about this long. Default 200 ms.</summary>
    public TimeSpan StepTime { get; init; } = TimeSpan.FromMilliseconds(200);

    /// <summary>Requests that wait at most; further ones are refused. Default 1,024.</summary>
    [Description("Requests that may wait; further ones are refused (429)")]
    public int MaxWaitingRequests { get; init; } = 1024;

    /// <summary>Prompt tokens that wait at most. Default 1,048,576.</summary>
    public long MaxWaitingTokens { get; init; } = 1 << 20;

    /// <summary>Requests of one client, running and waiting, of which a call has one per prompt; 0 is no limit of its own. Default 0.</summary>
    [Description("Prompts of one API key (or address) under way at once; 0 is no limit")]
    public int MaxRequestsPerClient { get; init; }

    /// <summary>Whether prompts reuse the cached beginnings of earlier ones. Default true.</summary>
    public bool ReusePrefixes { get; init; } = true;

    /// <summary>Bytes of logits that are held at once. Default 32 MiB.</summary>
    public long LogitsBytes { get; init; } = 32 << 20;

    /// <summary>A sequence whose client leaves so many pieces unread is not run on. Default 1,024.</summary>
    public int MaxUnreadChunks { get; init; } = 1024;
}

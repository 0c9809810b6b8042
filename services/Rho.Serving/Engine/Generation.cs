using System.Runtime.CompilerServices;
using System.Threading.Channels;

namespace Rho.Serving.Engine;

/// <summary>A request that an engine has accepted: where its answer comes out.</summary>
public sealed class Generation
{
    // Not the single-reader kind: that one cannot say how much is unread.
    private readonly Channel<GenerationChunk> _chunks = Channel.CreateUnbounded<GenerationChunk>(new UnboundedChannelOptions { SingleWriter = true });
    private readonly Action _cancelled;
    private volatile bool _isCancelled;
    private int _choicesLeft;

    internal Generation(GenerationRequest request, TimeProvider time, Action cancelled)
    {
        Request = request;
        Accepted = time.GetTimestamp();
        _cancelled = cancelled;
        _choicesLeft = request.Sampling.Choices;
    }

    public GenerationRequest Request { get; }

    /// <summary>What it took so far; complete once the chunks have ended.</summary>
    public GenerationUsage Usage { get; internal set; }

    internal long Accepted { get; }

    /// <summary>When its first computation began.</summary>
    internal long? Begun { get; set; }

    internal long? FirstToken { get; set; }

    /// <summary>Whether the last piece was written, or a failure.</summary>
    internal bool HasEnded { get; private set; }

    internal bool IsCancelled => _isCancelled;

    internal int Unread => _chunks.Reader.Count;

    /// <summary>
    /// The answer as it comes. Leaving the loop early, and cancelling, ends the work on it within one step. Throws what made the
    /// request fail; only a choice's chunk with <see cref="GenerationChunk.Finish"/> says that the choice is whole.
    /// </summary>
    public async IAsyncEnumerable<GenerationChunk> ReadAsync([EnumeratorCancellation] CancellationToken cancellation = default)
    {
        try
        {
            await foreach (var chunk in _chunks.Reader.ReadAllAsync(cancellation)) yield return chunk;
        }
        finally
        {
            Cancel();
        }
    }

    /// <summary>Ends the work on the request; chunks that wait can still be read. Does nothing to one that has ended.</summary>
    public void Cancel()
    {
        if (_isCancelled || _chunks.Reader.Completion.IsCompleted) return;
        _isCancelled = true;
        _cancelled();
    }

    internal void Write(GenerationChunk chunk) => _chunks.Writer.TryWrite(chunk);

    /// <summary>One choice has ended; true when it was the last.</summary>
    internal bool EndChoice()
    {
        if (--_choicesLeft > 0) return false;
        HasEnded = true;
        _chunks.Writer.TryComplete();
        return true;
    }

    internal void Fail(Exception exception)
    {
        HasEnded = true;
        _chunks.Writer.TryComplete(exception);
    }
}

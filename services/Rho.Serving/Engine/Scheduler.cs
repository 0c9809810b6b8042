using System.Runtime.InteropServices;
using Rho.Model.Inference;

namespace Rho.Serving.Engine;

/// <summary>A sequence's share of a step: compute <paramref name="Count"/> tokens from its <see cref="Sequence.Computed"/> on.</summary>
internal readonly record struct Share(Sequence Sequence, int Count);

/// <summary>
/// Decides what each step computes. Running continuations come first, one token each; what is left of the step's token budget is
/// split evenly among running prompts; then waiting sequences are let in as far as the cache has room. Who waits is let in by priority,
/// then by client with the least tokens so far, then by arrival. When the cache is full, the sequence last in that order gives its
/// blocks back and waits to be computed anew. Not thread-safe.
/// </summary>
/// <param name="recomputeBeyond"><see cref="DecodingModel.RecomputeBeyond"/></param>
internal sealed class Scheduler(BlockPool pool, EngineOptions options, int? recomputeBeyond = null)
{
    // Where the blocks of long sequences begin: the same tokens have other keys there.
    private const long StretchedChain = -1;

    private readonly List<Sequence> _running = [];
    private readonly List<Sequence> _waiting = [];
    private readonly List<Share> _shares = [];
    private readonly Dictionary<string, ClientShare> _clients = [];

    public IReadOnlyList<Sequence> Running => _running;

    public int Waiting => _waiting.Count;

    public long Preemptions { get; private set; }

    public long PrefixQueries { get; private set; }

    public long PrefixHits { get; private set; }

    /// <summary>Called with a sequence whenever it begins to run, anew after a preemption too.</summary>
    public Action<Sequence>? Started { get; init; }

    public void Add(Sequence sequence)
    {
        var client = sequence.Generation.Request.Client;
        if (!_clients.TryGetValue(client, out var share))
        {
            // Who comes anew starts level with the others: time away earns no turns.
            share = new ClientShare { Tokens = _clients.Count == 0 ? 0 : _clients.Values.Min(other => other.Tokens) };
            _clients.Add(client, share);
        }

        share.Sequences++;
        _waiting.Add(sequence);
    }

    /// <summary>Takes out finished, cancelled and failed sequences.</summary>
    public void Remove(Sequence sequence)
    {
        if (!_running.Remove(sequence) && !_waiting.Remove(sequence)) return;
        pool.Release(sequence.Blocks);
        var client = sequence.Generation.Request.Client;
        if (--_clients[client].Sequences == 0) _clients.Remove(client);
    }

    public IEnumerable<Sequence> All => _running.Concat(_waiting);

    /// <summary>The next step's work; empty when nothing can run.</summary>
    /// <param name="promptBudget">Tokens of the step while continuations run beside prompts.</param>
    public List<Share> Next(int promptBudget)
    {
        _shares.Clear();
        var left = options.MaxStepTokens;
        foreach (var sequence in _running.ToArray())
        {
            // It has outgrown what its keys were computed for, as at the beginning of Hugging Face's generation step: all of it is prompt again.
            if (!sequence.IsStretched && sequence.Tokens.Count > recomputeBeyond) Withdraw(sequence);
        }

        foreach (var sequence in _running.ToArray())
        {
            if (sequence.Remaining != 1 || left == 0 || sequence.Generation.Unread >= options.MaxUnreadChunks) continue;
            if (!HasRoomFor(sequence, 1)) continue;
            _shares.Add(new Share(sequence, 1));
            left--;
        }

        // A preemption may have taken away a sequence that already had its share.
        _shares.RemoveAll(share => share.Sequence.Blocks.Count == 0);
        if (_shares.Count > 0) left = Math.Min(left, Math.Max(0, promptBudget - _shares.Count));
        left = SharePrompts(left);
        Admit(left);
        foreach (var share in _shares) _clients[share.Sequence.Generation.Request.Client].Tokens += share.Count;
        return _shares;
    }

    private int SharePrompts(int left)
    {
        var prompts = _running.Where(sequence => sequence.Remaining > 1).ToArray();
        Array.Sort(prompts, (a, b) => a.Remaining.CompareTo(b.Remaining));
        for (var i = 0; i < prompts.Length && left > 0; i++)
        {
            // Short ones first, so that what they leave of their even share goes to the longer ones.
            var count = Math.Min(prompts[i].Remaining, Math.Max(1, left / (prompts.Length - i)));
            _shares.Add(new Share(prompts[i], count));
            left -= count;
        }

        return left;
    }

    private void Admit(int left)
    {
        while (left > 0 && _running.Count < options.MaxSequences && NextWaiting() is { } sequence)
        {
            if (!TryStart(sequence)) return;
            _waiting.Remove(sequence);
            _running.Add(sequence);
            Started?.Invoke(sequence);
            var count = Math.Min(left, sequence.Remaining);
            _shares.Add(new Share(sequence, count));
            left -= count;
        }
    }

    private Sequence? NextWaiting()
    {
        Sequence? best = null;
        foreach (var sequence in _waiting)
        {
            if (sequence.Leader is { Finished: false } leader && leader.Computed < leader.PromptLength && !leader.Generation.IsCancelled) continue;
            if (best is null || Precedes(sequence, best)) best = sequence;
        }

        return best;
    }

    private bool Precedes(Sequence a, Sequence b)
    {
        var (first, second) = (a.Generation.Request, b.Generation.Request);
        if (first.Priority != second.Priority) return first.Priority > second.Priority;
        var (firstTokens, secondTokens) = (_clients[first.Client].Tokens, _clients[second.Client].Tokens);
        if (!string.Equals(first.Client, second.Client, StringComparison.Ordinal) && firstTokens != secondTokens) return firstTokens < secondTokens;
        return a.Arrival < b.Arrival;
    }

    /// <summary>Takes blocks for all tokens that a sequence has, reusing those whose content is there already.</summary>
    private bool TryStart(Sequence sequence)
    {
        var tokens = CollectionsMarshal.AsSpan(sequence.Tokens);
        const int size = DecodingModel.BlockTokens;
        sequence.IsStretched = tokens.Length > recomputeBeyond;
        var chain = sequence.IsStretched ? StretchedChain : 0;
        // At least one token is left to compute, for its logits; and scored prompts need those of every token.
        var reusable = options.ReusePrefixes && !sequence.WantsPromptScores ? (tokens.Length - 1) / size : 0;
        for (var i = 0; i < reusable && pool.TryReuse(ref chain, tokens.Slice(i * size, size), out var block); i++) sequence.Blocks.Add(block);

        var reused = sequence.Blocks.Count;
        var needed = BlockPool.BlocksFor(tokens.Length) - reused;
        // Some room for those that run already keeps a newcomer from being preempted, or preempting, at once.
        if (pool.Free < needed + _running.Count)
        {
            pool.Release(sequence.Blocks);
            return false;
        }

        for (var i = 0; i < needed && pool.TryTake(out var block); i++) sequence.Blocks.Add(block);
        sequence.FilledBlocks = reused;
        sequence.Chain = chain;
        sequence.Computed = reused * size;
        if (sequence.Started is null)
        {
            PrefixQueries += sequence.PromptLength;
            PrefixHits += sequence.Computed;
            var generation = sequence.Generation;
            if (sequence.Choice == 0) generation.Usage = generation.Usage with { CachedPromptTokens = sequence.Computed };
        }

        return true;
    }

    /// <summary>Takes the block that a running sequence's next tokens need, if need be from the sequence that comes last.</summary>
    private bool HasRoomFor(Sequence sequence, int count)
    {
        while (sequence.Blocks.Count < BlockPool.BlocksFor(sequence.Computed + count))
        {
            if (pool.TryTake(out var block))
            {
                sequence.Blocks.Add(block);
                continue;
            }

            var last = _running.Where(other => other.Blocks.Count > 0).Aggregate((a, b) => Precedes(a, b) ? b : a);
            Preempt(last);
            if (last == sequence) return false;
        }

        return sequence.Blocks.Count > 0;
    }

    private void Preempt(Sequence sequence)
    {
        Preemptions++;
        Withdraw(sequence);
    }

    /// <summary>Gives a sequence's blocks back; it waits to be computed anew.</summary>
    private void Withdraw(Sequence sequence)
    {
        pool.Release(sequence.Blocks);
        sequence.Computed = 0;
        _running.Remove(sequence);
        _waiting.Add(sequence);
    }

    private sealed class ClientShare
    {
        public int Sequences { get; set; }

        public long Tokens { get; set; }
    }
}

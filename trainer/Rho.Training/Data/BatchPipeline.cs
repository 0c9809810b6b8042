using System.Threading.Channels;
using Rho.Formats;
using Rho.Model;

namespace Rho.Training;

/// <summary>
/// Makes micro-batches ahead of the step that needs them. Per corpus a loader reads stretches with their reference losses, one
/// ahead of the one in use; one assembler takes sequences from them by the mixture. Memory is bounded: three stretches of losses
/// per corpus and a few micro-batches.
/// </summary>
internal sealed class BatchPipeline : IDisposable
{
    private const int BatchesAhead = 4;
    private readonly TrainingData _data;
    private readonly CombinedReference? _reference;
    private readonly CombinedReference? _history;
    private readonly int _sequences;
    private readonly int _rank;
    private readonly ulong _seed;
    private readonly bool _cut;
    private readonly Handoff<PreparedBatch> _batches = new(BatchesAhead);
    private readonly CancellationTokenSource _stop;
    private readonly Task _work;

    /// <param name="consumed">Sequences already taken from each corpus, by all ranks.</param>
    /// <param name="cut">Whether micro-batches may be shorter than their sequences, where masks leave nothing to train on at their ends.</param>
    public BatchPipeline(TrainingData data, CombinedReference? reference, CombinedReference? history, int sequences, int rank, ulong seed, ReadOnlySpan<long> consumed, bool cut, CancellationToken cancellation)
    {
        (_data, _reference, _history, _sequences, _rank, _seed, _cut) = (data, reference, history, sequences, rank, seed, cut);
        _stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var taken = consumed.ToArray();
        _work = Task.Run(() => RunAsync(taken, _stop.Token), CancellationToken.None);
    }

    /// <summary>Waits until the next micro-batch or the end is there; false when the time is over first.</summary>
    public bool Wait(TimeSpan timeout, CancellationToken cancellation) => _batches.Wait(timeout, cancellation);

    /// <summary>The next micro-batch of this rank, waiting for it; false when the data has ended.</summary>
    public bool Take(out PreparedBatch batch, CancellationToken cancellation) => _batches.Take(out batch, cancellation);

    public void Dispose()
    {
        _stop.Cancel();
        // The work has no way to fail beyond its own handling; what it maps has to outlive it.
        _work.Wait();
        _batches.Dispose();
        _stop.Dispose();
    }

    private async Task RunAsync(long[] taken, CancellationToken cancellation)
    {
        using var loaders = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var channels = _data.Corpora.Select(_ => Channel.CreateBounded<LoadedStretch>(1)).ToArray();
        var loading = channels.Select((channel, corpus) => LoadAsync(corpus, taken[corpus], channel.Writer, loaders.Token)).ToArray();
        Exception? error = null;
        try
        {
            await AssembleAsync(taken, channels, cancellation);
        }
        catch (Exception e) when (e is not OperationCanceledException || !cancellation.IsCancellationRequested)
        {
            error = e is ChannelClosedException { InnerException: { } inner } ? inner : e;
        }
        catch (OperationCanceledException)
        {
            // Disposed, or the run stops: whoever takes has the same token.
        }

        await loaders.CancelAsync();
        await Task.WhenAll(loading);
        _batches.Complete(error);
    }

    private async Task LoadAsync(int corpus, long consumed, ChannelWriter<LoadedStretch> output, CancellationToken cancellation)
    {
        ShardLosses? losses = null, history = null;
        try
        {
            var order = new CorpusOrder(_data.Corpora[corpus].Shards, Randomness.Derive(_seed, (ulong)corpus), _data.FirstStretchSequences, _data.StretchSequences, _data.Mask(corpus)?.Kept);
            foreach (var stretch in order.From(consumed))
            {
                cancellation.ThrowIfCancellationRequested();
                var shard = _data.Shard(corpus, stretch.Shard);
                var loaded = new LoadedStretch(stretch, shard);
                if (_reference is not null)
                {
                    losses = await AtAsync(_reference, losses, shard, stretch);
                    loaded.Losses = await losses.ReadAsync(stretch.Count, cancellation);
                }

                if (_history is not null)
                {
                    history = await AtAsync(_history, history, shard, stretch);
                    loaded.History = await history.ReadAsync(stretch.Count, cancellation);
                }

                await output.WriteAsync(loaded, cancellation);
            }
        }
        catch (Exception e)
        {
            output.TryComplete(e);
        }
        finally
        {
            if (losses is not null) await losses.DisposeAsync();
            if (history is not null) await history.DisposeAsync();
        }
    }

    /// <summary>What reads a stretch: the reader at hand where it stands there.</summary>
    private async ValueTask<ShardLosses> AtAsync(CombinedReference reference, ShardLosses? losses, TokenShard shard, Stretch stretch)
    {
        if (losses is not null && losses.Shard == shard && losses.NextSequence == stretch.FirstSequence) return losses;
        if (losses is not null) await losses.DisposeAsync();
        return new ShardLosses(reference, shard, _data.DocumentsSeeEachOther, stretch.FirstSequence);
    }

    private async Task AssembleAsync(long[] taken, Channel<LoadedStretch>[] channels, CancellationToken cancellation)
    {
        var mixture = new Mixture(_data.Weights, _data.Limits);
        var current = new LoadedStretch?[channels.Length];
        while (true)
        {
            // Ranks take the micro-batches of one order in turn; the state is that after all of them.
            var builder = new BatchBuilder(_data, _sequences, _reference, _history is not null, _cut);
            for (var rank = 0; rank < _data.Ranks; rank++)
            {
                for (var slot = 0; slot < _sequences; slot++)
                {
                    var corpus = mixture.Next(taken);
                    if (corpus < 0) return;
                    if (current[corpus] is not { Left: > 0 }) current[corpus] = await channels[corpus].Reader.ReadAsync(cancellation);
                    var stretch = current[corpus]!;
                    var sequence = stretch.Take();
                    taken[corpus]++;
                    if (rank == _rank) builder.Add(slot, corpus, stretch, sequence);
                }
            }

            await _batches.PutAsync(builder.Build(taken), cancellation);
        }
    }
}

/// <summary>A stretch at hand, and how far it was read.</summary>
internal sealed class LoadedStretch(Stretch stretch, TokenShard shard)
{
    private int _position = stretch.Skip;

    public Stretch Stretch => stretch;

    public TokenShard Shard => shard;

    /// <summary>Null for objectives without a reference.</summary>
    public TokenScores? Losses { get; set; }

    /// <summary>Null for selectors that do not look at a history.</summary>
    public TokenScores? History { get; set; }

    public int Left => stretch.Permutation.Length - _position;

    /// <summary>The next sequence, by its place in the stretch.</summary>
    public int Take() => stretch.Permutation[_position++];
}

/// <summary>Fills the arrays of one micro-batch.</summary>
/// <param name="cut">Whether it ends at the last position that counts in any of its sequences, where masks say so.</param>
internal sealed class BatchBuilder(TrainingData data, int sequences, CombinedReference? reference, bool history, bool cut)
{
    private readonly int _length = data.Length;
    private readonly int[] _tokens = new int[sequences * data.Length];
    private readonly int[] _documents = new int[sequences * data.Length];
    private readonly TokenScores? _reference = reference is null ? null : TokenScores.Room(sequences * data.Length, reference.GivesEntropies, reference.TopK);
    private readonly TokenScores? _history = history ? TokenScores.Room(sequences * data.Length) : null;
    private readonly SequenceOrigin[] _origins = new SequenceOrigin[sequences];
    private bool[]? _masked;
    private bool _incomplete;

    public void Add(int slot, int corpus, LoadedStretch stretch, int place)
    {
        var target = slot * _length;
        var sequence = stretch.Stretch.FirstSequence + place;
        stretch.Shard.Read(sequence, _tokens.AsSpan(target, _length));
        stretch.Shard.ReadDocuments(sequence, _documents.AsSpan(target, _length));
        _origins[slot] = new SequenceOrigin(corpus, stretch.Stretch.Shard, sequence);
        if (stretch.Shard.HasLossMask) Mask(target, stretch.Shard.ReadLossMask(sequence, 1));
        if (data.Mask(corpus) is { } mask) Mask(target, mask.Read(stretch.Stretch.Shard, sequence));
        if (stretch.Losses is { } losses) Copy(losses, place, _reference!, target);
        if (stretch.History is { } history) Copy(history, place, _history!, target);
    }

    private void Copy(TokenScores losses, int place, TokenScores room, int target)
    {
        if ((place + 1) * _length > losses.Tokens) _incomplete = true;
        else losses.CopyTo(place * _length, _length, room, target);
    }

    public PreparedBatch Build(long[] taken)
    {
        var length = cut && _masked is not null ? LastThatCounts() : _length;
        var documents = Rows(_documents, length);
        if (data.DocumentsSeeEachOther)
        {
            // Only padding matters then; most batches have none.
            var padded = documents.AsSpan().Contains(-1);
            for (var i = 0; padded && i < documents.Length; i++) documents[i] = Math.Min(documents[i], 0);
            if (!padded) documents = null;
        }

        return new PreparedBatch
        {
            Tokens = new TokenBatch(Rows(_tokens, length), sequences, length, documents),
            Masked = _masked is null ? null : Rows(_masked, length),
            Origins = _origins,
            Reference = _incomplete ? null : Rows(_reference, length),
            History = _incomplete ? null : Rows(_history, length)?.Losses,
            WithoutReference = _incomplete,
            Consumed = [.. taken],
        };
    }

    private void Mask(int target, ReadOnlySpan<byte> counts)
    {
        _masked ??= new bool[_tokens.Length];
        for (var i = 0; i < counts.Length; i++) _masked[target + i] |= counts[i] == 0;
    }

    /// <summary>The least length that has all positions that count; no position sees one after it, so the others change nothing.</summary>
    private int LastThatCounts()
    {
        var length = Math.Min(2, _length);
        for (var slot = 0; slot < sequences; slot++) length = Math.Max(length, _masked.AsSpan(slot * _length, _length).LastIndexOf(false) + 1);
        return length;
    }

    private T[] Rows<T>(T[] all, int length)
    {
        if (length == _length) return all;
        var rows = new T[sequences * length];
        for (var slot = 0; slot < sequences; slot++) all.AsSpan(slot * _length, length).CopyTo(rows.AsSpan(slot * length));
        return rows;
    }

    private TokenScores? Rows(TokenScores? all, int length)
    {
        if (all is null || length == _length) return all;
        var rows = TokenScores.Room(sequences * length, all.Entropies.Length > 0, all.TopK);
        for (var slot = 0; slot < sequences; slot++) all.CopyTo(slot * _length, length, rows, slot * length);
        return rows;
    }
}

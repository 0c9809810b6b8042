using Rho.Client;
using Rho.Formats;

namespace Rho.Training;

/// <summary>Reads one shard's reference losses in order, from all sources, combined.</summary>
internal sealed class ShardLosses : IAsyncDisposable
{
    private readonly CombinedReference _reference;
    private readonly Cursor[] _cursors;

    public ShardLosses(CombinedReference reference, TokenShard shard, bool documentsSeeEachOther, long firstSequence)
    {
        (_reference, Shard, NextSequence) = (reference, shard, firstSequence);
        _cursors = [.. reference.Sources.Select(source => new Cursor(reference, source, shard, documentsSeeEachOther, firstSequence))];
    }

    public TokenShard Shard { get; }

    /// <summary>The sequence that the next read starts with.</summary>
    public long NextSequence { get; private set; }

    /// <summary>Scores of the next sequences; of fewer than asked for where the policy gave up. Entropies and likely tokens are a single source's.</summary>
    public async Task<TokenScores> ReadAsync(int sequences, CancellationToken cancellation)
    {
        var scores = TokenScores.Room(sequences * Shard.Length, _reference.GivesEntropies, _reference.TopK);
        var losses = scores.Losses;
        var read = await _cursors[0].ReadAsync(scores, cancellation);
        if (_cursors.Length > 1) Scale(losses, 0);
        for (var i = 1; i < _cursors.Length; i++)
        {
            var other = TokenScores.Room(losses.Length);
            read = Math.Min(read, await _cursors[i].ReadAsync(other, cancellation));
            Mix(losses, other.Losses, i);
        }

        if (_cursors.Length > 1)
            for (var i = 0; i < losses.Length; i++) losses[i] = -losses[i];
        NextSequence += read;
        return scores.Slice(0, read * Shard.Length);
    }

    /// <summary>From losses to weighted log-likelihoods.</summary>
    private void Scale(float[] losses, int source)
    {
        for (var i = 0; i < losses.Length; i++) losses[i] = (float)(_reference.LogWeights[source] - losses[i]);
    }

    /// <summary>The log of the sum of the mixture's parts.</summary>
    private void Mix(float[] logLikelihoods, float[] losses, int source)
    {
        for (var i = 0; i < losses.Length; i++)
        {
            var (a, b) = ((double)logLikelihoods[i], _reference.LogWeights[source] - losses[i]);
            var high = Math.Max(a, b);
            logLikelihoods[i] = (float)(double.IsNegativeInfinity(high) ? high : high + Math.Log(Math.Exp(a - high) + Math.Exp(b - high)));
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var cursor in _cursors) await cursor.DisposeAsync();
    }

    /// <summary>One source's place in the shard. Where it fails, it is asked again from the sequence reached, as the policy says.</summary>
    private sealed class Cursor(CombinedReference reference, IReferenceSource source, TokenShard shard, bool documentsSeeEachOther, long firstSequence) : IAsyncDisposable
    {
        private long _position = firstSequence;
        private IAsyncEnumerator<LossBlock>? _blocks;
        private CancellationTokenSource? _stop;
        private LossBlock? _block;
        private int _used;

        /// <summary>Fills the room, and says how many sequences it has: all, unless the policy is to go on without.</summary>
        public async Task<int> ReadAsync(TokenScores room, CancellationToken cancellation)
        {
            var total = room.Tokens / shard.Length;
            var filled = 0;
            while (filled < total)
            {
                if (_block is null || _used == _block.Sequences)
                {
                    if (!await NextAsync(cancellation)) return filled;
                }

                var count = Math.Min(total - filled, _block!.Sequences - _used);
                _block.Scores.CopyTo(_used * shard.Length, count * shard.Length, room, filled * shard.Length);
                filled += count;
                _used += count;
                _position += count;
            }

            return filled;
        }

        /// <summary>Gets the next block; false when the policy is to go on without.</summary>
        private async Task<bool> NextAsync(CancellationToken cancellation)
        {
            var started = DateTimeOffset.UtcNow;
            var delay = TimeSpan.FromMilliseconds(200);
            while (true)
            {
                string problem;
                try
                {
                    if (await MoveAsync(cancellation)) return true;
                    throw new CorruptDataException($"the reference ended at sequence {_position} of {shard.Sequences} in {shard.Path}");
                }
                catch (Exception e) when (e is UnavailableException or OverloadedException)
                {
                    problem = e.Message;
                }
                catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
                {
                    problem = $"no losses for {reference.Patience.TotalSeconds:0} s";
                }

                await CloseAsync();
                var waited = DateTimeOffset.UtcNow - started;
                if (waited >= reference.Patience)
                {
                    var failure = $"reference losses of {shard.Path} from sequence {_position} do not come: {problem}";
                    if (reference.Policy == UnavailablePolicy.Stop) throw new UnavailableException(failure);
                    if (reference.Policy == UnavailablePolicy.Clm)
                    {
                        reference.Warn($"{failure}; training on all tokens of the batches that need them");
                        return false;
                    }

                    reference.Warn($"{failure}; waiting");
                    started = DateTimeOffset.UtcNow;
                }

                await Task.Delay(delay, cancellation);
                delay = TimeSpan.FromMilliseconds(Math.Min(5000, delay.TotalMilliseconds * 2));
            }
        }

        private async ValueTask<bool> MoveAsync(CancellationToken cancellation)
        {
            if (_blocks is null)
            {
                _stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
                _blocks = source.ReadAsync(shard, documentsSeeEachOther, _position, _stop.Token).GetAsyncEnumerator(_stop.Token);
            }

            // A source that hangs is as bad as one that fails, unless the policy is to wait for it.
            if (reference.Policy != UnavailablePolicy.Wait) _stop!.CancelAfter(reference.Patience);
            if (!await reference.MeterAsync(_blocks.MoveNextAsync())) return false;
            _stop!.CancelAfter(Timeout.Infinite);
            _block = _blocks.Current;
            _used = 0;
            Check(_block);
            return true;
        }

        /// <summary>Wrong losses are worse than none: their place, their shape and what losses can be are checked.</summary>
        private void Check(LossBlock block)
        {
            var scores = block.Scores;
            if (block.FirstSequence != _position || scores.Tokens != block.Sequences * shard.Length || block.Sequences <= 0)
                throw new CorruptDataException($"the reference sent {block.Sequences} sequences from {block.FirstSequence} of {shard.Path}; {_position} was next");
            if (source.GivesEntropies && scores.Entropies.Length != scores.Tokens)
                throw new CorruptDataException($"the reference sent {scores.Entropies.Length} entropies with {scores.Tokens} losses of {shard.Path}");
            if (source.TopK > 0 && (scores.TopIds.Length != scores.Tokens * source.TopK || scores.TopLogProbabilities.Length != scores.TopIds.Length))
                throw new CorruptDataException($"the reference sent {scores.TopIds.Length} likely tokens with {scores.Tokens} losses of {shard.Path}, {source.TopK} each were asked for");
            for (var i = 0; i < scores.Tokens; i++)
            {
                var loss = scores.Losses[i];
                if (loss < -1e-3f || float.IsInfinity(loss)) throw Wrong($"loss {loss}", i);
                if (float.IsNaN(loss)) continue;
                if (source.GivesEntropies && !(scores.Entropies[i] > -1e-3f && float.IsFinite(scores.Entropies[i]))) throw Wrong($"entropy {scores.Entropies[i]}", i);
                for (var j = i * source.TopK; j < (i + 1) * source.TopK; j++)
                    if (scores.TopIds[j] < 0 || !(scores.TopLogProbabilities[j] < 1e-3f)) throw Wrong($"log-probability {scores.TopLogProbabilities[j]} of token {scores.TopIds[j]}", i);
            }

            CorruptDataException Wrong(string what, int i) => new($"the reference sent {what} for token {i % shard.Length} of sequence {_position + i / shard.Length} of {shard.Path}");
        }

        private async ValueTask CloseAsync()
        {
            if (_blocks is null) return;
            try
            {
                await _blocks.DisposeAsync();
            }
            finally
            {
                _stop!.Dispose();
                (_blocks, _stop, _block) = (null, null, null);
            }
        }

        public ValueTask DisposeAsync() => CloseAsync();
    }
}

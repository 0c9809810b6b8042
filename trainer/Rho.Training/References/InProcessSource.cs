using System.Runtime.CompilerServices;
using System.Threading.Channels;
using Rho.Client;
using Rho.Formats;
using Rho.Model;

namespace Rho.Training;

/// <summary>
/// Losses computed in this process, on a thread of their own, a few blocks ahead. Blocks lie on a fixed grid of the shard, whatever
/// sequence is read first: another batch would round differently.
/// </summary>
/// <param name="needs">What is wanted beside losses.</param>
internal sealed class InProcessSource(IReferenceModel model, ReferenceNeeds needs) : IReferenceSource
{
    private const int BlockTokens = 8192;
    private readonly Lock _model = new();

    public bool GivesEntropies => needs.Entropies;

    public int TopK => needs.TopK;

    public Task<ReferenceIdentity> IdentifyAsync(CancellationToken cancellation) => needs.TopK > model.MaxTopK
        ? throw new RhoException($"objective.selector.top_k is {needs.TopK}; a model in process gives up to {model.MaxTopK}")
        : Task.FromResult(new ReferenceIdentity(model.Fingerprint, model.TokenizerFingerprint, model.VocabularySize, model.ContextLength, model.Description));

    public async IAsyncEnumerable<LossBlock> ReadAsync(TokenShard shard, bool documentsSeeEachOther, long firstSequence, [EnumeratorCancellation] CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var blocks = Channel.CreateBounded<LossBlock>(2);
        var scoring = Task.Factory.StartNew(() => Score(shard, documentsSeeEachOther, firstSequence, blocks.Writer, stop.Token), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        try
        {
            await foreach (var block in blocks.Reader.ReadAllAsync(cancellation)) yield return block;
        }
        finally
        {
            await stop.CancelAsync();
            await scoring;
        }
    }

    private void Score(TokenShard shard, bool documentsSeeEachOther, long firstSequence, ChannelWriter<LossBlock> output, CancellationToken cancellation)
    {
        try
        {
            var length = shard.Length;
            var step = Math.Max(1, BlockTokens / length);
            for (var first = firstSequence / step * step; first < shard.Sequences; first += step)
            {
                var count = (int)Math.Min(step, shard.Sequences - first);
                var tokens = new int[count * length];
                var documents = new int[count * length];
                var scores = TokenScores.Room(count * length, needs.Entropies, needs.TopK);
                shard.Read(first, tokens);
                shard.ReadDocuments(first, documents);
                if (documentsSeeEachOther)
                    for (var i = 0; i < documents.Length; i++) documents[i] = Math.Min(documents[i], 0);
                lock (_model) model.Score(tokens, count, length, documents, scores, cancellation);
                var before = (int)Math.Max(0, firstSequence - first);
                var write = output.WriteAsync(new LossBlock(first + before, count - before, length, scores.Slice(before * length, (count - before) * length)), cancellation);
                if (!write.IsCompletedSuccessfully) write.AsTask().Wait(cancellation); // This thread is the scoring's own.
            }

            output.Complete();
        }
        catch (Exception e)
        {
            output.Complete(e);
        }
    }

    public ValueTask DisposeAsync()
    {
        model.Dispose();
        return ValueTask.CompletedTask;
    }
}

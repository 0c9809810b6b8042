using Rho.Client;
using Rho.Formats;
using Rho.Model;
using Rho.Selection;
using Rho.Torch;

namespace Rho.Training;

/// <summary>Losses of a corpus by a checkpoint in this process, as the folder of score files that scorers' losses make too.</summary>
public static class CheckpointScoring
{
    /// <summary>Scores shard after shard; files that are there already are kept, so a run that was interrupted goes on where it was.</summary>
    /// <param name="progress">Told the tokens done so far, those of earlier runs included.</param>
    /// <exception cref="MismatchException">The corpus is of another tokenizer or too long for the model, or the folder holds scores of another model or corpus.</exception>
    /// <exception cref="RhoException">The checkpoint or the corpus is missing or broken.</exception>
    public static async Task<ScoresDescription> RunAsync(
        Corpus corpus, string checkpoint, string directory, ScoreFormat format, ComputeSection compute, IProgress<long>? progress = null, CancellationToken cancellation = default)
    {
        var needs = new ReferenceNeeds(format.Entropy ? LossKinds.ReferenceEntropy : LossKinds.None, format.TopK);
        await using var source = new InProcessSource(ReferenceModel.Load(checkpoint, Devices.Resolve(compute.Device), RunPlan.ResolveCompute(compute.Precision)), needs);
        var model = await source.IdentifyAsync(cancellation);
        if (model.TokenizerFingerprint != corpus.TokenizerFingerprint)
            throw new MismatchException($"{checkpoint} has tokenizer {TrainingData.Short(model.TokenizerFingerprint!)}, {corpus.Directory} was made with {TrainingData.Short(corpus.TokenizerFingerprint)}");
        if (model.ContextLength < corpus.SequenceLength)
            throw new MismatchException($"{corpus.Directory} has sequences of {corpus.SequenceLength} tokens, the context of {checkpoint} has {model.ContextLength}");

        var description = ScoresDescription.Of(corpus, model.Fingerprint, format);
        Directory.CreateDirectory(directory);
        var missing = description.Missing(directory);
        var done = (corpus.Sequences - missing.Sum(index => corpus.Shards[index].Sequences)) * corpus.SequenceLength;
        foreach (var index in missing)
        {
            using var shard = corpus.OpenShard(index);
            using var file = description.CreateFile(directory, index, shard);
            await foreach (var block in source.ReadAsync(shard, corpus.DocumentsSeeEachOther, 0, cancellation))
            {
                file.Write(block.FirstSequence, block.Scores);
                progress?.Report(done += (long)block.Sequences * shard.Length);
            }

            file.Complete();
        }

        description.Save(directory);
        return description;
    }
}

using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization;
using Rho.Formats;
using Rho.Model;
using Rho.Selection;
using Rho.Tokenization;
using Rho.Torch;

namespace Rho.Training;

/// <summary>What to concentrate, by which models, into what.</summary>
public sealed record ConcentrationOptions
{
    /// <summary>Folder of the corpus.</summary>
    public required string Corpus { get; init; }

    /// <summary>Folder to write; it must not exist or be empty.</summary>
    public required string Output { get; init; }

    /// <summary>Folder of the checkpoint whose losses are the current ones; null where <see cref="ModelScores"/> has them. Excess loss depends on it: concentrated data is of its time.</summary>
    public string? Model { get; init; }

    /// <summary>Folder of score files with the checkpoint's losses: no model is run.</summary>
    public string? ModelScores { get; init; }

    /// <summary>Whether to write masks alone (<see cref="CorpusMask"/>), for a run's data.corpora[].mask, and not the corpus again.</summary>
    public bool MaskOnly { get; init; }

    /// <summary>Where reference losses come from.</summary>
    public required ReferenceSection Reference { get; init; }

    /// <summary>
    /// Ratio, criterion and scope of the selection: sequence; micro_batch, batches of <see cref="Sequences"/> in the corpus's order;
    /// global_batch, each shard as a whole.
    /// </summary>
    public ObjectiveSection Objective { get; init; } = new() { Kind = ObjectiveKind.Slm };

    /// <summary>Sequences of a batch.</summary>
    public int Sequences { get; init; } = 8;

    public long Seed { get; init; } = 1;

    public ComputeSection Compute { get; init; } = new();
}

/// <summary>What was selected; concentrated.json beside the corpus.</summary>
public sealed record ConcentrationReport
{
    public string Format { get; init; } = "rho.concentrated.v1";

    public required string Corpus { get; init; }

    /// <summary>Fingerprint of the model whose losses were the current ones.</summary>
    public required string Model { get; init; }

    public required string Reference { get; init; }

    public required ObjectiveSection Objective { get; init; }

    /// <summary>Tokens with a target.</summary>
    public required long Candidates { get; init; }

    public required long Selected { get; init; }

    /// <summary>Mean loss of the selected and of all candidates under the model, nats per token.</summary>
    public required double SelectedLoss { get; init; }

    public required double AllLoss { get; init; }
}

/// <summary>
/// Writes what selection keeps of a corpus as "concentrated" data for other trainers: a corpus with the same tokens and documents, and in
/// each shard a tensor loss_mask, U8 [sequences, length], 1 where the token's loss counts and 0 where it does not. What a loss_mask of the
/// corpus itself leaves out is no candidate. Or only those masks, as a <see cref="CorpusMask"/> that a run reads.
/// </summary>
public static class Concentrator
{
    public const string ReportFile = "concentrated.json";

    private static readonly JsonSerializerOptions Json = new(RunFileReader.Json) { NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals };

    /// <param name="progress">Told the tokens done so far.</param>
    /// <exception cref="RhoException">Something does not fit, cannot be reached or cannot be written; nothing that looks whole is left.</exception>
    public static async Task<ConcentrationReport> RunAsync(ConcentrationOptions options, IProgress<long>? progress = null, CancellationToken cancellation = default)
    {
        if (Directory.Exists(options.Output) && Directory.EnumerateFileSystemEntries(options.Output).Any())
            throw new RhoException($"{options.Output} exists already; choose another folder or remove it");
        if (options.Reference.MovingAverageDecay is not null) throw new RhoException("a moving average is a reference of a run in progress only");
        using var data = new TrainingData(new DataSection { Corpora = [new CorpusSection { Path = options.Corpus }] }, 1);
        var device = Devices.Resolve(options.Compute.Device);
        var compute = RunPlan.ResolveCompute(options.Compute.Precision);
        if (options.Model is null == options.ModelScores is null) throw new RhoException("the current losses are a checkpoint's or in score files: name one of both");
        using var model = options.Model is null ? null : ReferenceModel.Load(options.Model, device, compute);
        if (model is not null) Check(model, options, data);
        var selector = SelectorFactory.Create(options.Objective.Selector, options.Objective.Scope);
        var needs = SelectorFactory.Needs(options.Objective with { Kind = ObjectiveKind.Slm });
        if ((needs.Entropies || needs.TopK > 0) && options.Reference.Sources.Count > 1) throw new RhoException("entropies and divergences are of a single reference: a mixture's cannot be had from its parts'");
        await using var reference = options.Reference.Sources.Count == 0 ? null : await CombinedReference.ConnectAsync(
            options.Reference with { WhenUnavailable = UnavailablePolicy.Stop }, source => RunPlan.Open(source, data, options.Reference, needs, device, compute), data, _ => { }, cancellation);
        await using var current = options.ModelScores is null ? null : await CombinedReference.ConnectAsync(
            new ReferenceSection { Sources = [new ReferenceSourceSection { Scores = options.ModelScores }], WhenUnavailable = UnavailablePolicy.Stop },
            source => new ScoreFolderSource(source.Scores!, default), data, _ => { }, cancellation);
        if (needs.TopK > 0) throw new RhoException("divergence is a criterion of runs: concentrated data is selected by losses and entropies");
        if (needs.Reference && reference is null) throw new RhoException("this criterion compares with a reference, and none is given");
        if (needs.Words && model is null) throw new RhoException("whole words need the tokenizer of a model: name a checkpoint, not score files");
        var words = needs.Words ? new WordTable(Tokenizer.Load(options.Model!), model!.VocabularySize) : null;

        var work = new Work(options, data, model, current, reference, selector, words, progress);
        try
        {
            Directory.CreateDirectory(options.Output);
            for (var i = 0; i < data.Corpora[0].Shards.Count; i++) await work.ShardAsync(i, cancellation);
            var report = work.Report();
            AtomicFile.WriteText(Path.Combine(options.Output, ReportFile), JsonSerializer.Serialize(report, Json) + "\n");
            if (options.MaskOnly) CorpusMask.Save(options.Output, new MaskDescription { TokenizerFingerprint = data.TokenizerFingerprint, Shards = work.Masks });
            else Corpus.Save(options.Output, data.Corpora[0].Description);
            return report;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{options.Output} cannot be written: {e.Message}", e);
        }
    }

    private static void Check(ReferenceModel model, ConcentrationOptions options, TrainingData data)
    {
        if (model.TokenizerFingerprint != data.TokenizerFingerprint)
            throw new MismatchException($"{options.Model} has tokenizer {TrainingData.Short(model.TokenizerFingerprint)}, {options.Corpus} was made with {TrainingData.Short(data.TokenizerFingerprint)}");
        if (model.ContextLength < data.Length) throw new MismatchException($"{options.Corpus} has sequences of {data.Length} tokens, the context of {options.Model} has {model.ContextLength}");
    }

    private sealed class Work(
        ConcentrationOptions options, TrainingData data, ReferenceModel? model, CombinedReference? current, CombinedReference? reference, ITokenSelector selector, WordTable? words,
        IProgress<long>? progress)
    {
        private readonly List<MaskEntry> _masks = [];
        private SelectionStatistics _statistics = new();
        private long _done;

        public IReadOnlyList<MaskEntry> Masks => _masks;

        public async Task ShardAsync(int index, CancellationToken cancellation)
        {
            var shard = data.Shard(0, index);
            var batch = options.Objective.Scope == ObjectiveScope.GlobalBatch ? checked((int)shard.Sequences) : options.Sequences;
            await using var known = current is null ? null : new ShardLosses(current, shard, data.DocumentsSeeEachOther, 0);
            await using var losses = reference is null ? null : new ShardLosses(reference, shard, data.DocumentsSeeEachOther, 0);
            var file = data.Corpora[0].Shards[index].File;
            using var source = SafetensorsFile.Open(shard.Path);
            TensorEntry[] copied = options.MaskOnly ? [] : [.. source.Tensors.Values.Where(tensor => tensor.Name != TokenShard.LossMask)];
            using var writer = options.MaskOnly ? CorpusMask.Create(Path.Combine(options.Output, file), shard) : SafetensorsWriter.Create(
                Path.Combine(options.Output, file),
                copied.Select(tensor => (tensor.Name, tensor.Type, tensor.Shape)).Append((TokenShard.LossMask, ElementType.U8, [shard.Sequences, shard.Length])),
                source.Metadata);
            foreach (var tensor in copied) Copy(source, tensor, writer);
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            for (long first = 0; first < shard.Sequences; first += batch)
            {
                cancellation.ThrowIfCancellationRequested();
                var count = (int)Math.Min(batch, shard.Sequences - first);
                var stretch = losses is null ? null : await losses.ReadAsync(count, cancellation);
                var currentLosses = known is null ? Score(shard, first, count, cancellation) : (await known.ReadAsync(count, cancellation)).Losses;
                var mask = Select(shard, first, currentLosses, stretch, Randomness.Derive((ulong)options.Seed, (ulong)index, (ulong)first));
                writer.Write(TokenShard.LossMask, first * shard.Length, mask);
                hash.AppendData(mask);
                progress?.Report(_done += mask.Length);
            }

            writer.Complete();
            _masks.Add(new MaskEntry(file, shard.Sha256, Convert.ToHexStringLower(hash.GetHashAndReset())));
        }

        public ConcentrationReport Report() => new()
        {
            Corpus = Path.GetFullPath(options.Corpus),
            Model = model?.Fingerprint ?? current!.Fingerprint,
            Reference = reference?.Fingerprint ?? "none",
            Objective = options.Objective,
            Candidates = _statistics.Candidates,
            Selected = _statistics.Selected,
            SelectedLoss = _statistics.MeanSelectedLoss,
            AllLoss = _statistics.MeanLoss,
        };

        /// <summary>The model's losses. [count * length]</summary>
        private float[] Score(TokenShard shard, long first, int count, CancellationToken cancellation)
        {
            var size = count * shard.Length;
            var (tokens, documents, losses) = (new int[size], new int[size], new float[size]);
            shard.Read(first, tokens);
            shard.ReadDocuments(first, documents);
            if (data.DocumentsSeeEachOther)
                for (var i = 0; i < size; i++) documents[i] = Math.Min(documents[i], 0);
            for (var part = 0; part < count; part += options.Sequences)
            {
                var sequences = Math.Min(options.Sequences, count - part);
                var (start, length) = (part * shard.Length, sequences * shard.Length);
                model!.Score(tokens.AsSpan(start, length), sequences, shard.Length, documents.AsSpan(start, length), losses.AsSpan(start, length), cancellation);
            }

            return losses;
        }

        private byte[] Select(TokenShard shard, long first, float[] currentLosses, TokenScores? referenceLosses, ulong seed)
        {
            var weights = new float[currentLosses.Length];
            if (shard.HasLossMask)
            {
                var counts = shard.ReadLossMask(first, weights.Length / shard.Length);
                for (var i = 0; i < weights.Length; i++)
                    if (counts[i] == 0) currentLosses[i] = float.NaN;
            }

            var losses = new TokenLosses { Current = currentLosses, Reference = referenceLosses?.Losses, ReferenceEntropy = referenceLosses?.Entropies, Words = Words(shard, first, weights.Length), Length = shard.Length, Seed = seed };
            selector.Select(losses, options.Objective.Ratio, weights);
            _statistics = _statistics.Add(SelectionStatistics.Measure(currentLosses, referenceLosses?.Losses, weights));
            return [.. weights.Select(weight => weight > 0 ? (byte)1 : (byte)0)];
        }

        private int[]? Words(TokenShard shard, long first, int count)
        {
            if (words is null) return null;
            var tokens = new int[count];
            shard.Read(first, tokens);
            return words.Number(tokens);
        }

        private static void Copy(SafetensorsFile source, TensorEntry tensor, SafetensorsWriter writer)
        {
            const int step = 1 << 26;
            for (long start = 0; start < tensor.ByteLength; start += step)
                writer.Write(tensor.Name, start, source.Bytes(tensor.Name, start, (int)Math.Min(step, tensor.ByteLength - start)));
        }
    }
}

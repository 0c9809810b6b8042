using Rho.Formats;
using Rho.Model;
using Rho.Tokenization;
using Rho.Torch;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Training;

/// <summary>All that a run works with, opened and checked to fit together before anything is computed or written.</summary>
internal sealed class RunPlan : IAsyncDisposable
{
    private RunPlan(RunFile run, TrainingData data, Tokenizer tokenizer, IReadOnlyList<HeldOutSet> sets, IRankGroup ranks)
    {
        (Run, Data, Tokenizer, Sets, Ranks) = (run, data, tokenizer, sets, ranks);
        SequencesPerStep = (long)run.Batch.Sequences * run.Batch.Accumulation * ranks.Size;
        TokensPerStep = SequencesPerStep * data.Length;
        Steps = CountSteps();
        Device = Devices.Resolve(run.Compute.Device);
        Compute = ResolveCompute(run.Compute.Precision);
    }

    public RunFile Run { get; }

    public TrainingData Data { get; }

    public Tokenizer Tokenizer { get; }

    public IReadOnlyList<HeldOutSet> Sets { get; }

    public IRankGroup Ranks { get; }

    public CombinedReference? Reference { get; private set; }

    /// <summary>Where losses of reference.history come from; null for selectors that do not look at them.</summary>
    public CombinedReference? History { get; private set; }

    /// <summary>What a checkpoint and a resumed run compare; null for runs without a reference.</summary>
    public string? ReferenceFingerprint =>
        Reference?.Fingerprint ?? (Run is { Objective.Kind: ObjectiveKind.Slm, Reference.MovingAverageDecay: { } decay } ? $"moving average {decay:R}" : null);

    public long SequencesPerStep { get; }

    public long TokensPerStep { get; }

    public long Steps { get; }

    public Device Device { get; }

    public ComputeType Compute { get; }

    public static async Task<RunPlan> PrepareAsync(RunFile run, IRankGroup ranks, Action<string> warn, CancellationToken cancellation)
    {
        var data = new TrainingData(run.Data, ranks.Size);
        var sets = new List<HeldOutSet>();
        try
        {
            var tokenizer = FieldErrors.Named(run.Model.Tokenizer is null ? "model.from" : "model.tokenizer", () => Tokenizer.Load(run.Model.Tokenizer ?? run.Model.From!));
            if (tokenizer.Fingerprint != data.TokenizerFingerprint)
                throw new MismatchException($"data.corpora[0]: {data.Corpora[0].Directory} was made with tokenizer {TrainingData.Short(data.TokenizerFingerprint)}, the model's is {TrainingData.Short(tokenizer.Fingerprint)}: build the corpus with the tokenizer in {run.Model.Tokenizer ?? run.Model.From}, or train a model with the corpus's");
            for (var i = 0; i < run.Evaluation.Sets.Count; i++) sets.Add(FieldErrors.Named($"evaluation.sets[{i}]", () => new HeldOutSet(run.Evaluation.Sets[i], data)));
            var plan = new RunPlan(run, data, tokenizer, sets, ranks);
            plan.CheckModel();
            var needs = SelectorFactory.Needs(run.Objective);
            if (needs.History)
            {
                plan.History = await CombinedReference.ConnectAsync(
                    run.Reference with { Sources = [run.Reference.History!] }, source => Open(source, data, run.Reference, default, plan.Device, plan.Compute), data, warn, cancellation, "reference.history");
            }

            if (run.Objective.Kind == ObjectiveKind.Slm && run.Reference.Sources.Count > 0)
            {
                plan.Reference = await CombinedReference.ConnectAsync(run.Reference, source => Open(source, data, run.Reference, needs, plan.Device, plan.Compute), data, warn, cancellation);
            }

            return plan;
        }
        catch
        {
            foreach (var set in sets) set.Dispose();
            data.Dispose();
            throw;
        }
    }

    /// <summary>The model to train, with its first weights.</summary>
    public TrainingModel CreateModel()
    {
        var model = Run.Model.From is { } from
            ? LanguageModel.Load(from, Device, ComputeType.Float32)
            : LanguageModel.Create(NewConfig(), Run.Seed, Device, ComputeType.Float32);
        var options = new TrainingOptions
        {
            Compute = Compute,
            ActivationCheckpointing = Run.Compute.ActivationCheckpointing,
            ZLoss = Run.Loss.ZLoss,
            LabelSmoothing = Run.Loss.LabelSmoothing,
            RouterBalance = Run.Loss.RouterBalance,
            Backward = Run.Objective.Backward,
            BackwardHalo = Run.Objective.BackwardHalo,
        };
        return new TrainingModel(model, Run.Compute.LogitsBytes is { } bytes ? options with { LogitsBudgetBytes = bytes } : options);
    }

    /// <summary>
    /// Floating-point operations of a token's forward and backward pass: 6 per weight outside the embedding and 12 per layer, width
    /// and position attended to (Chowdhery et al. 2022, appendix B). Recomputation is not counted.
    /// </summary>
    /// <param name="parameters">of the model, without those of the experts that a token does not take</param>
    public static double FlopsPerToken(ModelConfig config, long parameters, int length)
    {
        var embedding = (long)config.VocabularySize * config.HiddenSize;
        return 6.0 * (parameters - (config.TiedEmbeddings ? 0 : embedding)) + 12.0 * config.Layers * config.Heads * config.HeadSize * length;
    }

    public async ValueTask DisposeAsync()
    {
        if (Reference is not null) await Reference.DisposeAsync();
        if (History is not null) await History.DisposeAsync();
        foreach (var set in Sets) set.Dispose();
        Data.Dispose();
    }

    internal static IReferenceSource Open(ReferenceSourceSection source, TrainingData data, ReferenceSection reference, ReferenceNeeds needs, Device device, ComputeType compute)
    {
        if (source.Scorers is not null) return new ScorerSource(source, data.TokenizerFingerprint, TimeSpan.FromSeconds(reference.PatienceSeconds), needs);
        if (source.Scores is { } scores) return new ScoreFolderSource(scores, needs);
        return new InProcessSource(ReferenceModel.Load(source.Model!, device, compute), needs);
    }

    internal static ComputeType ResolveCompute(ComputePrecision precision) => precision switch
    {
        ComputePrecision.Float32 => ComputeType.Float32,
        ComputePrecision.Bfloat16 => ComputeType.BFloat16,
        _ => ComputeType.Auto,
    };

    private void CheckModel()
    {
        var config = Run.Model.From is { } from ? FieldErrors.Named("model.from", () => ModelConfig.Load(from)) : NewConfig();
        config.Validate(Run.Model.From ?? "model.config");
        if (Run.Loss.RouterBalance > 0 && config.Experts == 0) throw new RhoException($"loss.router_balance is {Run.Loss.RouterBalance}, but a model of type {config.ModelType} has no experts: leave it out");
        var vocabulary = Data.Corpora.Max(corpus => corpus.VocabularySize);
        if (vocabulary > config.VocabularySize) throw new MismatchException($"the corpora have a vocabulary of {vocabulary} tokens, the model of {config.VocabularySize}");
        if (Data.Length > config.ContextLength) throw new MismatchException($"the corpora have sequences of {Data.Length} tokens, the model's context has {config.ContextLength}");
    }

    private ModelConfig NewConfig()
    {
        var config = Run.Model.Config!;
        return new ModelConfig
        {
            VocabularySize = config.VocabularySize ?? Tokenizer.VocabularySize,
            HiddenSize = config.HiddenSize,
            IntermediateSize = config.IntermediateSize ?? (config.HiddenSize * 8 / 3 + 31) / 32 * 32,
            Layers = config.Layers,
            Heads = config.Heads,
            KeyValueHeads = config.KeyValueHeads ?? config.Heads,
            HeadSize = config.HiddenSize / config.Heads,
            ContextLength = config.ContextLength ?? Data.Length,
            NormEpsilon = config.NormEpsilon,
            RopeTheta = config.RopeTheta,
            TiedEmbeddings = config.TiedEmbeddings,
            BosTokenId = Tokenizer.BosId,
            EosTokenId = Tokenizer.EosId,
        };
    }

    private long CountSteps()
    {
        var available = long.MaxValue;
        if (Data.Limits.All(limit => limit < long.MaxValue)) available = Data.Limits.Sum() / SequencesPerStep;
        var wanted = Run.Steps ?? (Run.Tokens is { } tokens ? (tokens + TokensPerStep - 1) / TokensPerStep : available);
        if (available == 0) throw new RhoException($"data.corpora have {Data.Limits.Sum()} sequences in their epochs, fewer than the {SequencesPerStep} of one step");
        if (wanted > available) throw new RhoException($"{(Run.Steps is not null ? "steps" : "tokens")} asks for {wanted} steps, but data.corpora end after {available} in their epochs");
        return wanted;
    }
}

/// <summary>A held-out corpus.</summary>
internal sealed class HeldOutSet : IDisposable
{
    private readonly Corpus _corpus;
    private readonly Lazy<TokenShard>[] _shards;
    private readonly long _sequences;

    public HeldOutSet(EvaluationSetSection section, TrainingData data)
    {
        Name = section.Name;
        _corpus = Corpus.Open(section.Corpus);
        if (_corpus.TokenizerFingerprint != data.TokenizerFingerprint)
            throw new MismatchException($"{section.Corpus} was made with tokenizer {TrainingData.Short(_corpus.TokenizerFingerprint)}, the training data with {TrainingData.Short(data.TokenizerFingerprint)}");
        if (_corpus.SequenceLength > data.Length)
            throw new MismatchException($"{section.Corpus} has sequences of {_corpus.SequenceLength} tokens, the training data of {data.Length}");
        if (_corpus.Sequences == 0) throw new RhoException($"{section.Corpus} is empty");
        _sequences = Math.Min(_corpus.Sequences, section.MaxSequences ?? long.MaxValue);
        _shards = [.. _corpus.Shards.Select((_, i) => new Lazy<TokenShard>(() => _corpus.OpenShard(i)))];
    }

    public string Name { get; }

    /// <summary>All of the set in order, in batches.</summary>
    public IEnumerable<TokenBatch> Batches(int sequences)
    {
        var left = _sequences;
        var length = _corpus.SequenceLength;
        foreach (var shard in _shards)
        {
            for (long first = 0; first < shard.Value.Sequences && left > 0; first += sequences)
            {
                var count = (int)Math.Min(Math.Min(sequences, shard.Value.Sequences - first), left);
                var tokens = new int[count * length];
                var documents = new int[count * length];
                shard.Value.Read(first, tokens);
                shard.Value.ReadDocuments(first, documents);
                if (_corpus.DocumentsSeeEachOther)
                    for (var i = 0; i < documents.Length; i++) documents[i] = Math.Min(documents[i], 0);
                left -= count;
                yield return new TokenBatch(tokens, count, length, documents);
            }
        }
    }

    public void Dispose()
    {
        foreach (var shard in _shards)
            if (shard.IsValueCreated) shard.Value.Dispose();
    }
}

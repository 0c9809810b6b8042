using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using Rho.Model;
using Rho.Selection;
using Rho.Torch;

namespace Rho.Training;

/// <summary>
/// A training run as one file: JSON in snake_case, comments and trailing commas allowed, unknown fields refused. Descriptions, bounds
/// and defaults below are also the published schema (run.schema.json). Relative paths are relative to the run file's folder.
/// </summary>
public sealed record RunFile
{
    [Description("Name in reports; the output folder's name where absent.")]
    public string? Name { get; init; }

    [Description("Folder of the run: run.json, metrics.jsonl, checkpoints/ and, at the end, final/ with the model as a Hugging Face folder.")]
    public required string Output { get; init; }

    [Description("What is trained.")]
    public required ModelSection Model { get; init; }

    [Description("What it is trained on.")]
    public required DataSection Data { get; init; }

    [Description("Which tokens count in the loss.")]
    public ObjectiveSection Objective { get; init; } = new();

    [Description("Where reference losses come from; needed where the selector looks at a reference.")]
    public ReferenceSection Reference { get; init; } = new();

    [Description("Micro-batches and accumulation.")]
    public BatchSection Batch { get; init; } = new();

    [Description("Optimizer steps of the whole run. Either steps or tokens, or neither where all corpora have epochs.")]
    [Range(1, long.MaxValue)]
    public long? Steps { get; init; }

    [Description("Tokens to read in the whole run, selected or not; rounded up to whole steps.")]
    [Range(1, long.MaxValue)]
    public long? Tokens { get; init; }

    [Description("AdamW (Loshchilov and Hutter 2019).")]
    public OptimizerSection Optimizer { get; init; } = new();

    [Description("Learning rate over the run.")]
    public required ScheduleSection Schedule { get; init; }

    [Description("Terms beside cross-entropy.")]
    public LossSection Loss { get; init; } = new();

    [Description("Where from all that is random follows: initial weights, order of the data, random selection.")]
    [Range(0, long.MaxValue)]
    public long Seed { get; init; } = 1;

    [Description("When and what to keep of the run's state.")]
    public CheckpointSection Checkpoints { get; init; } = new();

    [Description("Losses on held-out text.")]
    public EvaluationSection Evaluation { get; init; } = new();

    [Description("Where metrics go beside metrics.jsonl.")]
    public MetricsSection Metrics { get; init; } = new();

    [Description("Where and how tensors are computed.")]
    public ComputeSection Compute { get; init; } = new();

    /// <summary>Reads and checks a run file; paths in the result are absolute.</summary>
    /// <exception cref="RhoException">The file is missing or wrong; the message names each field at fault.</exception>
    public static RunFile Load(string path) => RunFileReader.Load(path);

    /// <summary>Parses and checks a run file's text.</summary>
    /// <param name="json">The text.</param>
    /// <param name="baseDirectory">What relative paths are relative to.</param>
    /// <param name="source">What the text is called in errors.</param>
    /// <exception cref="RhoException">The text is wrong; the message names each field at fault.</exception>
    public static RunFile Parse(string json, string baseDirectory, string source = "run file") => RunFileReader.Parse(json, baseDirectory, source);

    /// <summary>The run that a checkpoint or final model lies in the folder of; null where it lies elsewhere.</summary>
    /// <param name="checkpoint">Folder of a model, such as slm/final or slm/checkpoints/step-00001000.</param>
    /// <exception cref="RhoException">The run's file cannot be read or is wrong.</exception>
    public static RunFile? OfCheckpoint(string checkpoint)
    {
        var parent = Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(checkpoint)));
        foreach (var folder in new[] { parent, Path.GetDirectoryName(parent) })
            if (folder is not null && Path.Combine(folder, RunFolder.RunFileName) is var path && File.Exists(path)) return Load(path);
        return null;
    }

    /// <summary>The file's text with all defaults written out.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, RunFileReader.Json) + "\n";
}

public sealed record ModelSection
{
    [Description("Folder of a Hugging Face checkpoint to start from. Either this or config.")]
    public string? From { get; init; }

    [Description("Architecture of a model to train from scratch. Either this or from.")]
    public NewModelSection? Config { get; init; }

    [Description("Folder with tokenizer.json; with from, the checkpoint's own where absent.")]
    public string? Tokenizer { get; init; }
}

[Description("A Llama-family model with random weights: RMSNorm, rotary embedding, grouped-query attention, SwiGLU.")]
public sealed record NewModelSection
{
    [Description("Tokens of the vocabulary; the tokenizer's where absent.")]
    [Range(1, 1 << 24)]
    public int? VocabularySize { get; init; }

    [Description("Width of the residual stream.")]
    [Range(1, 1 << 20)]
    public required int HiddenSize { get; init; }

    [Description("Width of the feed-forward layers; 8/3 of hidden_size, rounded up to a multiple of 32, where absent.")]
    [Range(1, 1 << 22)]
    public int? IntermediateSize { get; init; }

    [Description("Decoder blocks.")]
    [Range(1, 10_000)]
    public required int Layers { get; init; }

    [Description("Attention heads; hidden_size is a multiple of them.")]
    [Range(1, 1 << 16)]
    public required int Heads { get; init; }

    [Description("Heads of keys and values, a divisor of heads; as many as heads where absent.")]
    [Range(1, 1 << 16)]
    public int? KeyValueHeads { get; init; }

    [Description("Tokens that the model is made for; the corpus's sequence length where absent.")]
    [Range(2, 1 << 24)]
    public int? ContextLength { get; init; }

    [Description("Base of the rotary embedding's wave lengths.")]
    [Range(1.0, 1e12)]
    public double RopeTheta { get; init; } = 10_000;

    [Description("Epsilon of RMSNorm.")]
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double NormEpsilon { get; init; } = 1e-5;

    [Description("Whether the head shares the embedding's weights.")]
    public bool TiedEmbeddings { get; init; }
}

public sealed record DataSection
{
    [Description("Corpora, all with one tokenizer and one sequence length.")]
    public required IReadOnlyList<CorpusSection> Corpora { get; init; }

    [Description("Sequences are shuffled within stretches of a shard of about this many tokens, shards among each other; the first ones are shorter, from 65536 tokens on. More mixes better and holds more reference losses in memory (4 bytes each, three stretches), and a stretch is trained on once all of its losses are there.")]
    [Range(1, 1 << 30)]
    public long ShuffleTokens { get; init; } = 8 << 20;
}

public sealed record CorpusSection
{
    [Description("Folder of the corpus.")]
    public required string Path { get; init; }

    [Description("Folder with a mask of the corpus, as `rho concentrate --mask` writes it: only the tokens that it keeps are candidates, beside what a loss_mask of the shards leaves out, and positions after the last one in a micro-batch are cut off. With objective.kind clm all of them are trained on, and no reference is needed.")]
    public string? Mask { get; init; }

    [Description("Sequences of which the mask keeps fewer tokens are left out.")]
    [Range(0, 1 << 24)]
    public int MinimumSelected { get; init; } = 1;

    [Description("Share of the sequences taken from this corpus, relative to the others' weights; its number of sequences where no corpus has one, so that all are read evenly.")]
    [Range(0.0, 1e18, MinimumIsExclusive = true)]
    public double? Weight { get; init; }

    [Description("How often it is read at most, such as 1 or 0.5; without bound where absent.")]
    [Range(0.0, 1e9, MinimumIsExclusive = true)]
    public double? Epochs { get; init; }
}

public enum ObjectiveKind
{
    Clm,
    Slm,
}

public enum ObjectiveScope
{
    MicroBatch,
    Sequence,
    GlobalBatch,
}

public sealed record ObjectiveSection
{
    [Description("clm: all tokens. slm: selected tokens.")]
    public ObjectiveKind Kind { get; init; }

    [Description("Share of the candidates that is kept, k% in the paper (60% for about 1B parameters, 70% for about 7B).")]
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double Ratio { get; init; } = 0.6;

    [Description("How the ratio changes over the run; constant where absent.")]
    public RatioScheduleSection? RatioSchedule { get; init; }

    [Description("What is ranked together. global_batch is exact over accumulation steps and ranks, and costs one more forward pass where a step has several micro-batches.")]
    public ObjectiveScope Scope { get; init; }

    [Description("What tokens are ranked by; excess loss, as in the paper, where absent.")]
    public SelectorSection Selector { get; init; } = new();

    [Description("Some of the tokens that are not selected, so that the model does not forget them; none where absent.")]
    public FloorSection? Floor { get; init; }

    [Description("Steps at the start that train on all tokens.")]
    [Range(0, long.MaxValue)]
    public long ClmSteps { get; init; }

    [Description("exact: the gradient of the selected tokens' loss. filtered: the backward pass goes over the rows of the selected tokens only, in every layer; keys and values of other tokens get no gradient. An approximation that saves most of the dropped tokens' share of the backward (Centrifuge, arXiv 2502.00340); metrics.gradient_check_steps says how near it is.")]
    public BackwardRows Backward { get; init; }

    [Description("Tokens before each selected one, of its document, whose rows a filtered backward takes too: nearer to the exact gradient, and dearer.")]
    [Range(0, 1 << 20)]
    public int BackwardHalo { get; init; }
}

[Description("Each token that is not selected is kept with probability share and then counts weight / share: the expected sum of losses is that of the selection plus weight times that of the rest, over share of the rest's rows (after NAT, arXiv 2603.06619). A token of a soft weight s below 1 counts as 1 - s of the rest.")]
public sealed record FloorSection
{
    [Description("What the rest counts in expectation, the selected tokens counting 1.")]
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public required double Weight { get; init; }

    [Description("Share of the rest that is drawn, anew in each step.")]
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public required double Share { get; init; }
}

public enum RatioScheduleKind
{
    Linear,
    Cosine,
    Adaptive,
}

public sealed record RatioScheduleSection
{
    [Description("linear and cosine: from objective.ratio to `to` over `steps`. adaptive: the share of tokens with positive excess loss, smoothed, between floor and ceiling, from objective.ratio on.")]
    public required RatioScheduleKind Kind { get; init; }

    [Description("Last ratio of linear and cosine.")]
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double? To { get; init; }

    [Description("Steps of linear and cosine; the whole run where absent.")]
    [Range(1, long.MaxValue)]
    public long? Steps { get; init; }

    [Description("Lowest ratio of adaptive.")]
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double Floor { get; init; } = 0.2;

    [Description("Highest ratio of adaptive.")]
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double Ceiling { get; init; } = 1;
}

public enum SelectorCriterion
{
    ExcessLoss,
    ReferenceLoss,
    ReferenceEntropy,
    Divergence,
    CurrentLoss,
    Random,
}

public enum SelectorUnit
{
    Token,
    Word,
    Sequence,
}

public sealed record SelectorSection
{
    [Description("excess_loss: current minus reference loss, highest first. reference_loss: lowest first, as in the paper's self-reference. reference_entropy: where the reference is surest first, the paper's other self-reference. divergence: KL divergence of the model from the reference over the reference's top_k tokens and one bucket for all others, highest first. reference_entropy and divergence need one reference, or the moving average; score files need to be written with --entropy or --top-k. current_loss: highest first. random: the control.")]
    public SelectorCriterion By { get; init; }

    [Description("How many of the reference's most likely tokens divergence looks at; 8 where absent. Each holds 8 bytes a token beside the reference losses (see data.shuffle_tokens).")]
    [Range(1, 256)]
    public int? TopK { get; init; }

    [Description("token: each by itself. word: a word's tokens together, by their mean. sequence: whole sequences, by their mean.")]
    public SelectorUnit Unit { get; init; }

    [Description("Temperature of soft weights, the softmax of the criterion, instead of a hard choice; hard where absent.")]
    [Range(0.0, 1e6, MinimumIsExclusive = true)]
    public double? Temperature { get; init; }

    [Description("Ratio of this part of all_of or any_of; objective.ratio where absent.")]
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double? Ratio { get; init; }

    [Description("Rank by the first's loss minus the second's, highest first, instead of `by`: two of current (the model in training), reference and history (reference.history). [\"current\", \"reference\"] is excess_loss; [\"history\", \"current\"] what was learnt since an earlier checkpoint; [\"history\", \"reference\"], with the base model as the history, needs no losses of the model in training.")]
    public IReadOnlyList<LossSet>? ExcessOf { get; init; }

    [Description("Keep what all of these keep, instead of `by`.")]
    public IReadOnlyList<SelectorSection>? AllOf { get; init; }

    [Description("Keep what any of these keeps, instead of `by`.")]
    public IReadOnlyList<SelectorSection>? AnyOf { get; init; }
}

public enum UnavailablePolicy
{
    Wait,
    Clm,
    Stop,
}

public sealed record ReferenceSection
{
    [Description("One reference, or several: their losses are combined as the loss of their mixture, -ln sum_i w_i exp(-loss_i).")]
    public IReadOnlyList<ReferenceSourceSection> Sources { get; init; } = [];

    [Description("A third model whose losses excess_of looks at as history, such as a checkpoint of this run or another: score files, scorers or the checkpoint.")]
    public ReferenceSourceSection? History { get; init; }

    [Description("Decay per step of a moving average of the trained weights that serves as the reference, such as 0.999; sources stay empty.")]
    [Range(0.0, 1.0, MinimumIsExclusive = true, MaximumIsExclusive = true)]
    public double? MovingAverageDecay { get; init; }

    [Description("What to do when losses do not come for patience_seconds. wait: go on trying, with a message. clm: train the waiting batch on all its tokens, counted in the metrics. stop: checkpoint and end with an error.")]
    public UnavailablePolicy WhenUnavailable { get; init; }

    [Description("How long a source may fail before when_unavailable applies.")]
    [Range(0.0, 1e6)]
    public double PatienceSeconds { get; init; } = 60;
}

public sealed record ReferenceSourceSection
{
    [Description("Addresses of scorers that serve one reference, host:port or http(s)://host:port. One of scorers, scores or model.")]
    public IReadOnlyList<string>? Scorers { get; init; }

    [Description("Fingerprint of the reference that the scorers are to serve; their default where absent.")]
    public string? Fingerprint { get; init; }

    [Description("File whose first line is the scorers' API key.")]
    public string? ApiKeyFile { get; init; }

    [Description("PEM file with the authorities of the scorers' certificates; the system's where absent.")]
    public string? CertificateAuthority { get; init; }

    [Description("PEM file with this client's certificate, for mutual TLS.")]
    public string? ClientCertificate { get; init; }

    [Description("PEM file with the client certificate's key.")]
    public string? ClientKey { get; init; }

    [Description("Folder with score files, such as `rho score` writes.")]
    public string? Scores { get; init; }

    [Description("Folder of a Hugging Face checkpoint, scored in this process.")]
    public string? Model { get; init; }

    [Description("Weight in the mixture of several references.")]
    [Range(0.0, 1e6, MinimumIsExclusive = true)]
    public double Weight { get; init; } = 1;
}

public sealed record BatchSection
{
    [Description("Sequences of a micro-batch.")]
    [Range(1, 1 << 20)]
    public int Sequences { get; init; } = 8;

    [Description("Micro-batches of an optimizer step, on each rank.")]
    [Range(1, 1 << 20)]
    public int Accumulation { get; init; } = 1;
}

public sealed record OptimizerSection
{
    [Description("Decay of the mean of gradients.")]
    [Range(0.0, 1.0, MaximumIsExclusive = true)]
    public double Beta1 { get; init; } = 0.9;

    [Description("Decay of the mean of squared gradients.")]
    [Range(0.0, 1.0, MaximumIsExclusive = true)]
    public double Beta2 { get; init; } = 0.95;

    [Description("Added to the root of the mean of squared gradients.")]
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double Epsilon { get; init; } = 1e-8;

    [Description("Decoupled weight decay per unit of learning rate.")]
    [Range(0.0, 100.0)]
    public double WeightDecay { get; init; } = 0.1;

    [Description("Whether norms and biases decay too.")]
    public bool DecayNorms { get; init; }

    [Description("Whether the embedding decays too.")]
    public bool DecayEmbedding { get; init; } = true;

    [Description("Highest norm of the whole gradient; 0 does not clip.")]
    [Range(0.0, 1e9)]
    public double Clip { get; init; } = 1.0;

    [Description("The run stops after this many skipped steps in a row whose loss or gradient was not a number.")]
    [Range(1, int.MaxValue)]
    public int MaxNonFiniteSteps { get; init; } = 10;
}

public enum ScheduleKind
{
    Cosine,
    Linear,
    Constant,
    Wsd,
}

public enum WarmupKind
{
    FromOne,
    FromZero,
}

public sealed record ScheduleSection
{
    [Description("After warm-up: cosine or linear to final_ratio; constant; wsd: constant, then linear to final_ratio over the last decay_share of the run.")]
    public ScheduleKind Kind { get; init; }

    [Description("Highest learning rate. The paper continues a 1.1B model with 8e-5 and a 7B model with 2e-5.")]
    [Range(0.0, 100.0, MinimumIsExclusive = true)]
    public required double LearningRate { get; init; }

    [Description("Steps of linear warm-up; 2000, or 5% of the run where that is less, where absent.")]
    [Range(0, long.MaxValue)]
    public long? WarmupSteps { get; init; }

    [Description("from_one: step s of W, from 0 on, has (s + 1) / W of the highest learning rate, so that the first step learns. from_zero: s / W, as Hugging Face's schedulers do.")]
    public WarmupKind Warmup { get; init; }

    [Description("Last learning rate as a share of the highest.")]
    [Range(0.0, 1.0)]
    public double FinalRatio { get; init; } = 0.1;

    [Description("Share of the run in which wsd decays.")]
    [Range(0.0, 1.0, MinimumIsExclusive = true)]
    public double DecayShare { get; init; } = 0.1;
}

public sealed record LossSection
{
    [Description("Weight of the squared log of the softmax's denominator, such as 1e-4; 0 is none.")]
    [Range(0.0, 1.0)]
    public double ZLoss { get; init; }

    [Description("Share of each target that is spread evenly over the vocabulary; 0 is none. Selection looks at losses without it.")]
    [Range(0.0, 1.0, MaximumIsExclusive = true)]
    public double LabelSmoothing { get; init; }

    [Description("Weight of the load-balancing loss of a mixture of experts, such as the router_aux_loss_coef of its config.json (0.02 in Mixtral-8x7B, 0.001 in Qwen3-30B-A3B); 0 is none, whatever config.json says. All tokens but padding count in it, selected or not.")]
    [Range(0.0, 100.0)]
    public double RouterBalance { get; init; }
}

public sealed record CheckpointSection
{
    [Description("Steps between checkpoints; 0 writes one at the end of the run and when it is stopped.")]
    [Range(0, long.MaxValue)]
    public long EverySteps { get; init; } = 1000;

    [Description("How many of the newest to keep.")]
    [Range(1, 1_000_000)]
    public int KeepLast { get; init; } = 3;

    [Description("Also keep the best by this evaluation set's loss.")]
    public string? KeepBestBy { get; init; }

    [Description("Write while training goes on, from a copy of the state in memory.")]
    public bool Asynchronous { get; init; } = true;
}

public sealed record EvaluationSection
{
    [Description("Steps between evaluations; one also comes before the first step and after the last. 0: none in between.")]
    [Range(0, long.MaxValue)]
    public long EverySteps { get; init; } = 500;

    [Description("Held-out corpora.")]
    public IReadOnlyList<EvaluationSetSection> Sets { get; init; } = [];
}

public sealed record EvaluationSetSection
{
    [Description("Name in metrics.")]
    public required string Name { get; init; }

    [Description("Folder of the corpus.")]
    public required string Corpus { get; init; }

    [Description("Sequences from the start of the corpus to use; all where absent.")]
    [Range(1, long.MaxValue)]
    public long? MaxSequences { get; init; }
}

public sealed record MetricsSection
{
    [Description("Write TensorBoard event files into the run's folder.")]
    public bool Tensorboard { get; init; }

    [Description("Steps between comparisons of the filtered with the exact gradient, on the step's first micro-batch: two more backward passes and 4 bytes a parameter in such a step; 0 for never.")]
    [Range(0, long.MaxValue)]
    public long GradientCheckSteps { get; init; } = 200;

    [Description("Peak floating-point operations per second of the devices together, for the share of it that training reaches; not reported where absent.")]
    [Range(0.0, 1e24, MinimumIsExclusive = true)]
    public double? PeakFlops { get; init; }
}

public enum ComputePrecision
{
    Auto,
    Float32,
    Bfloat16,
}

public sealed record ComputeSection
{
    [Description($"{Devices.Names}; auto is the GPU where there is one.")]
    public string Device { get; init; } = "auto";

    [Description("Type of the products; weights, moments and gradients are kept as float32. auto is bfloat16 where the device computes it natively.")]
    public ComputePrecision Precision { get; init; }

    [Description("Keep only each block's input in the forward pass and recompute the rest in the backward pass.")]
    public bool ActivationCheckpointing { get; init; }

    [Description("Memory for logits at a time; the model's own choice where absent.")]
    [Range(1 << 16, 1L << 40)]
    public long? LogitsBytes { get; init; }
}

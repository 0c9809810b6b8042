using System.Text.Json;
using Rho.Formats;
using Rho.Model;
using Rho.Tokenization;
using Rho.Torch;

namespace Rho.Training;

/// <summary>What to look at.</summary>
public sealed record DynamicsOptions
{
    /// <summary>Checkpoint folders (Hugging Face) in the order of training, the first weights included where they are at hand.</summary>
    public required IReadOnlyList<string> Checkpoints { get; init; }

    /// <summary>Folder of the validation corpus.</summary>
    public required string Corpus { get; init; }

    /// <summary>Tokens of the corpus to use at most; the paper takes about 320,000.</summary>
    public long MaxTokens { get; init; } = 320_000;

    /// <summary>Change of loss, in nats, from which on a token counts as learnt or lost.</summary>
    public double Threshold { get; init; } = 0.2;

    /// <summary>Sequences whose text is shown.</summary>
    public int Examples { get; init; } = 6;

    public ComputeSection Compute { get; init; } = new();
}

/// <summary>One class of tokens.</summary>
/// <param name="Share">Of all tokens.</param>
/// <param name="Losses">Mean loss at each checkpoint, nats.</param>
public sealed record ClassTrajectory(TokenClass Class, long Tokens, double Share, IReadOnlyList<double> Losses);

/// <summary>A token of an example text.</summary>
/// <param name="Class">Null where the token has no loss.</param>
/// <param name="Losses">At each checkpoint, nats; empty where it has none.</param>
public sealed record ExampleToken(string Text, TokenClass? Class, IReadOnlyList<float> Losses);

/// <summary>Token dynamics over a series of checkpoints: shares, trajectories and example texts.</summary>
public sealed record DynamicsReport
{
    private const int BatchTokens = 8192;

    public required string Corpus { get; init; }

    public required IReadOnlyList<string> Checkpoints { get; init; }

    public required double Threshold { get; init; }

    public required long Tokens { get; init; }

    /// <summary>Mean loss over all tokens at each checkpoint, nats.</summary>
    public required IReadOnlyList<double> Losses { get; init; }

    public required IReadOnlyList<ClassTrajectory> Classes { get; init; }

    public required IReadOnlyList<IReadOnlyList<ExampleToken>> Examples { get; init; }

    /// <summary>Scores the corpus with each checkpoint and classifies its tokens.</summary>
    /// <param name="progress">Told the share of the work done.</param>
    /// <exception cref="RhoException">A checkpoint or the corpus is missing or broken, or they do not fit together.</exception>
    public static DynamicsReport Create(DynamicsOptions options, IProgress<double>? progress = null, CancellationToken cancellation = default)
    {
        if (options.Checkpoints.Count < 2) throw new RhoException($"token dynamics need at least two checkpoints, not {options.Checkpoints.Count}");
        var corpus = Formats.Corpus.Open(options.Corpus);
        var sequences = (int)Math.Min(corpus.Sequences, Math.Max(1, options.MaxTokens / corpus.SequenceLength));
        var (tokens, documents) = Read(corpus, sequences);
        var losses = new List<float[]>();
        foreach (var checkpoint in options.Checkpoints)
        {
            losses.Add(Score(checkpoint, corpus, tokens, documents, sequences, options, share => progress?.Report((losses.Count + share) / options.Checkpoints.Count), cancellation));
        }

        // Only tokens that have a loss take part.
        var places = Enumerable.Range(0, tokens.Length).Where(i => !float.IsNaN(losses[0][i])).ToArray();
        if (places.Length == 0) throw new RhoException($"{options.Corpus} has no token with a target");
        var series = losses.Select(all => places.Select(place => all[place]).ToArray()).ToList();
        var classes = TokenDynamics.Classify(series, options.Threshold);
        return new DynamicsReport
        {
            Corpus = options.Corpus,
            Checkpoints = options.Checkpoints,
            Threshold = options.Threshold,
            Tokens = places.Length,
            Losses = [.. series.Select(one => one.Average(loss => (double)loss))],
            Classes = [.. Enum.GetValues<TokenClass>().Select(kind => Trajectory(kind, classes, series))],
            Examples = Show(options, corpus, tokens, documents, sequences, losses, places, classes),
        };
    }

    /// <summary>As JSON in snake_case.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, RunFileReader.Json) + "\n";

    /// <summary>As one HTML page without links to others.</summary>
    public string ToHtml() => DynamicsPage.Render(this);

    private static (int[] Tokens, int[] Documents) Read(Corpus corpus, int sequences)
    {
        var length = corpus.SequenceLength;
        var (tokens, documents) = (new int[sequences * length], new int[sequences * length]);
        var read = 0;
        for (var i = 0; i < corpus.Shards.Count && read < sequences; i++)
        {
            using var shard = corpus.OpenShard(i);
            var count = (int)Math.Min(shard.Sequences, sequences - read);
            shard.Read(0, tokens.AsSpan(read * length, count * length));
            shard.ReadDocuments(0, documents.AsSpan(read * length, count * length));
            read += count;
        }

        if (corpus.DocumentsSeeEachOther)
            for (var i = 0; i < documents.Length; i++) documents[i] = Math.Min(documents[i], 0);
        return (tokens, documents);
    }

    private static float[] Score(string checkpoint, Corpus corpus, int[] tokens, int[] documents, int sequences, DynamicsOptions options, Action<double> progress, CancellationToken cancellation)
    {
        using var model = ReferenceModel.Load(checkpoint, Devices.Resolve(options.Compute.Device), RunPlan.ResolveCompute(options.Compute.Precision));
        if (model.TokenizerFingerprint != corpus.TokenizerFingerprint)
            throw new MismatchException($"{checkpoint} has tokenizer {TrainingData.Short(model.TokenizerFingerprint)}, {corpus.Directory} was made with {TrainingData.Short(corpus.TokenizerFingerprint)}");
        var losses = new float[tokens.Length];
        var step = Math.Max(1, BatchTokens / corpus.SequenceLength);
        for (var first = 0; first < sequences; first += step)
        {
            var count = Math.Min(step, sequences - first);
            var (start, length) = (first * corpus.SequenceLength, count * corpus.SequenceLength);
            model.Score(tokens.AsSpan(start, length), count, corpus.SequenceLength, documents.AsSpan(start, length), losses.AsSpan(start, length), cancellation);
            progress((double)(first + count) / sequences);
        }

        return losses;
    }

    private static ClassTrajectory Trajectory(TokenClass kind, TokenClass[] classes, List<float[]> series)
    {
        var members = Enumerable.Range(0, classes.Length).Where(i => classes[i] == kind).ToArray();
        return new ClassTrajectory(
            kind, members.Length, (double)members.Length / classes.Length,
            members.Length == 0 ? [] : [.. series.Select(losses => members.Average(i => (double)losses[i]))]);
    }

    /// <summary>Sequences spread evenly over what was scored.</summary>
    private static List<IReadOnlyList<ExampleToken>> Show(
        DynamicsOptions options, Corpus corpus, int[] tokens, int[] documents, int sequences, List<float[]> losses, int[] places, TokenClass[] classes)
    {
        var tokenizer = Tokenizer.Load(options.Checkpoints[0]);
        var classAt = new Dictionary<int, TokenClass>();
        for (var i = 0; i < places.Length; i++) classAt[places[i]] = classes[i];
        var examples = new List<IReadOnlyList<ExampleToken>>();
        var count = Math.Min(options.Examples, sequences);
        for (var example = 0; example < count; example++)
        {
            var start = (int)((long)example * sequences / count) * corpus.SequenceLength;
            examples.Add([.. Enumerable.Range(start, corpus.SequenceLength).Where(i => documents[i] >= 0).Select(i => classAt.TryGetValue(i, out var kind)
                ? new ExampleToken(Text(tokenizer, tokens[i]), kind, [.. losses.Select(all => all[i])])
                : new ExampleToken(Text(tokenizer, tokens[i]), null, []))]);
        }

        return examples;
    }

    private static string Text(Tokenizer tokenizer, int token) => System.Text.Encoding.UTF8.GetString(tokenizer.TokenBytes(token).Span);
}

using System.Diagnostics;

namespace Rho.Training;

/// <summary>The references of a run as one: connects and checks them before any work, then reads, combines and waits for their losses.</summary>
internal sealed class CombinedReference : IAsyncDisposable
{
    private readonly ReferenceSection _section;
    private long _ticks;
    private long _waiting;

    private CombinedReference(ReferenceSection section, IReadOnlyList<IReferenceSource> sources, IReadOnlyList<ReferenceIdentity> identities, Action<string> warn)
    {
        (_section, Sources, Identities, Warn) = (section, sources, identities, warn);
        var total = section.Sources.Sum(source => source.Weight);
        LogWeights = [.. section.Sources.Select(source => Math.Log(source.Weight / total))];
    }

    public IReadOnlyList<IReferenceSource> Sources { get; }

    public IReadOnlyList<ReferenceIdentity> Identities { get; }

    public double[] LogWeights { get; }

    public Action<string> Warn { get; }

    /// <summary>Whether entropies come with the losses: only a single source's can, since a mixture's do not follow from its parts'.</summary>
    public bool GivesEntropies => Sources is [{ GivesEntropies: true }];

    /// <summary>How many most likely tokens come with the losses, of a single source; 0 for none.</summary>
    public int TopK => Sources is [var only] ? only.TopK : 0;

    public TimeSpan Patience => TimeSpan.FromSeconds(_section.PatienceSeconds);

    public UnavailablePolicy Policy => _section.WhenUnavailable;

    /// <summary>One fingerprint for all references and their weights; of a single one, its own.</summary>
    public string Fingerprint => Identities.Count == 1
        ? Identities[0].Fingerprint
        : string.Join('+', Identities.Select((identity, i) => $"{_section.Sources[i].Weight:R}*{identity.Fingerprint}"));

    /// <summary>Time spent until losses came, over all corpora. A wait that goes on counts up to now.</summary>
    public TimeSpan TimeSpent => TimeSpan.FromTicks(Interlocked.Read(ref _ticks));

    /// <summary>Whether losses are being waited for at this moment.</summary>
    public bool IsWaiting => Interlocked.Read(ref _waiting) > 0;

    /// <summary>Connects to all sources and compares them with the data. Nothing is scored yet.</summary>
    /// <param name="name">What a single source is called in errors; its place in reference.sources where absent.</param>
    /// <exception cref="RhoException">A source is away or does not fit the data.</exception>
    public static async Task<CombinedReference> ConnectAsync(
        ReferenceSection section, Func<ReferenceSourceSection, IReferenceSource> open, TrainingData data, Action<string> warn, CancellationToken cancellation, string? name = null)
    {
        var sources = new List<IReferenceSource>();
        try
        {
            var identities = new List<ReferenceIdentity>();
            for (var i = 0; i < section.Sources.Count; i++)
            {
                var (field, source) = (name ?? $"reference.sources[{i}]", section.Sources[i]);
                sources.Add(FieldErrors.Named(field, () => open(source)));
                var identity = await FieldErrors.NamedAsync(field, () => sources[^1].IdentifyAsync(cancellation));
                Check($"{field} ({identity.Description})", identity, sources[i], data);
                identities.Add(identity);
            }

            return new CombinedReference(section, sources, identities, warn);
        }
        catch
        {
            foreach (var source in sources) await source.DisposeAsync();
            throw;
        }
    }

    private static void Check(string name, ReferenceIdentity identity, IReferenceSource source, TrainingData data)
    {
        if (identity.TokenizerFingerprint is { } tokenizer && tokenizer != data.TokenizerFingerprint)
            throw new MismatchException($"{name} has tokenizer {TrainingData.Short(tokenizer)}, the corpora {TrainingData.Short(data.TokenizerFingerprint)}: losses of other tokens are of no use");
        if (identity.ContextLength is { } context && context < data.Length)
            throw new MismatchException($"{name} scores at most {context} tokens at a time, the corpora have sequences of {data.Length}");
        if (identity.VocabularySize is { } vocabulary && data.Corpora.Max(corpus => corpus.VocabularySize) is var needed && vocabulary < needed)
            throw new MismatchException($"{name} has {vocabulary} tokens, the corpora's vocabulary {needed}");
        if (source is not ScoreFolderSource folder) return;
        if (folder.Description is { } scores && scores.DocumentsSeeEachOther != data.DocumentsSeeEachOther)
            throw new MismatchException($"{name}: was scored with documents that {(scores.DocumentsSeeEachOther ? "see" : "do not see")} each other, the corpora's {(data.DocumentsSeeEachOther ? "do" : "do not")}");
        foreach (var corpus in data.Corpora)
            foreach (var shard in corpus.Shards)
                if (!folder.Has(shard.Sha256)) throw new NotFoundException($"{name}: has no scores of {Path.Combine(corpus.Directory, shard.File)}");
    }

    /// <summary>Meters a wait for losses.</summary>
    public async ValueTask<T> MeterAsync<T>(ValueTask<T> wait)
    {
        if (wait.IsCompletedSuccessfully) return await wait;
        Interlocked.Increment(ref _waiting);
        var start = Stopwatch.GetTimestamp();
        try
        {
            return await wait;
        }
        finally
        {
            Interlocked.Add(ref _ticks, Stopwatch.GetElapsedTime(start).Ticks);
            Interlocked.Decrement(ref _waiting);
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var source in Sources) await source.DisposeAsync();
    }
}

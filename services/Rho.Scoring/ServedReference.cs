using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.Model;
using Rho.Scoring.Caching;
using Rho.Scoring.Work;

namespace Rho.Scoring;

/// <summary>A reference model with the loop that owns it. Made ready by scoring the probe batch, which also warms it up.</summary>
public sealed class ServedReference : IDisposable
{
    private readonly IReferenceModel _model;

    private ServedReference(IReferenceModel model, ScoringOptions options, ScoringMetrics metrics, IWorkWatch? watch)
    {
        _model = model;
        Fingerprint = model.Fingerprint;
        TokenizerFingerprint = model.TokenizerFingerprint;
        VocabularySize = model.VocabularySize;
        ContextLength = model.ContextLength;
        Description = model.Description;
        MaxTopK = model.MaxTopK;
        Loop = new ModelLoop(model, options.BatchTokens, metrics, watch);
        Admission = new Admission(options.MaxQueuedTokens, () => Loop.State.TokensPerSecond);
    }

    public string Fingerprint { get; }

    public string TokenizerFingerprint { get; }

    public int VocabularySize { get; }

    /// <summary>Tokens.</summary>
    public int ContextLength { get; }

    public string Description { get; }

    /// <summary>The most tokens that <see cref="ScoreFormat.TopK"/> may ask for; 0: neither they nor entropies are offered.</summary>
    public int MaxTopK { get; }

    /// <summary>Losses of <see cref="ProbeBatch"/>, nats.</summary>
    public float[] ProbeLosses { get; private set; } = [];

    internal ModelLoop Loop { get; }

    internal Admission Admission { get; }

    /// <summary>Starts the loop and scores the probe batch. The reference owns the model from here on.</summary>
    internal static async Task<ServedReference> StartAsync(
        IReferenceModel model, ScoringOptions options, ScoringMetrics metrics, IWorkWatch? watch, CancellationToken cancellation)
    {
        var reference = new ServedReference(model, options, metrics, watch);
        try
        {
            var length = ProbeBatch.Length(model.ContextLength);
            var work = new ScoringWork
            {
                Client = "probe",
                Tokens = ProbeBatch.Tokens(model.VocabularySize, length),
                Sequences = ProbeBatch.Sequences,
                Length = length,
                Format = new ScoreFormat(LossEncoding.F32),
                Cancellation = cancellation,
            };
            await reference.Loop.ScoreAsync(work);
            reference.ProbeLosses = work.Scores!.Losses;
            return reference;
        }
        catch
        {
            reference.Dispose();
            throw;
        }
    }

    /// <exception cref="RhoException">The reference does not offer what the format asks for.</exception>
    public void Check(ScoreFormat format)
    {
        if (format.Entropy && MaxTopK == 0) throw new RhoException("format.entropy: this reference offers no entropies");
        if (format.TopK < 0 || format.TopK > MaxTopK)
            throw new RhoException($"format.top_k is {format.TopK}; this reference offers {(MaxTopK == 0 ? "no top-k log-probabilities: expected 0" : $"0 to {MaxTopK}")}");
    }

    /// <summary>
    /// Compares with the probe losses that the store knows for this fingerprint. They need not be the same bits, for machines
    /// differ; what differs by more than arithmetic can is another model.
    /// </summary>
    /// <exception cref="MismatchException">The store's scores are of another model.</exception>
    public async Task AgreeWithAsync(ILossStore store, CancellationToken cancellation)
    {
        if (!store.Available) return;
        try
        {
            var stored = await store.ProbeAsync(Fingerprint, ProbeLosses, cancellation);
            if (!ProbeBatch.Agree(stored, ProbeLosses))
                throw new MismatchException(
                    $"the {store.Kind} cache holds scores of reference {Fingerprint} that this process does not reproduce (probe batch differs): "
                    + "one of them computes wrongly; use another cache, or delete what it holds for this reference");
        }
        catch (StoreUnavailableException)
        {
            // Checked again by the next replica that starts.
        }
    }

    public ReadOnlySpan<byte> ProbeBytes => MemoryMarshal.AsBytes(ProbeLosses.AsSpan());

    public void Dispose()
    {
        Loop.Dispose();
        _model.Dispose();
    }
}

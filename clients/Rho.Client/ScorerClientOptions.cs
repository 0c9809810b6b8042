using Rho.Formats;

namespace Rho.Client;

/// <summary>Where scorers are and how patient to be with them. The defaults suit a training run.</summary>
public sealed record ScorerClientOptions
{
    /// <summary>
    /// Scorers that serve one reference: "host:port", "http://host:port", "https://host:port", or "dns:///name:port" for all
    /// addresses of a name, which is looked up again at intervals.
    /// </summary>
    public required IReadOnlyList<string> Addresses { get; init; }

    /// <summary>Fingerprint of the reference wanted; null: whatever the first scorer that answers serves by default.</summary>
    public string? Reference { get; init; }

    /// <summary>Fingerprint of the tokenizer that made the tokens; a scorer with another one is refused before any work. Null: not checked.</summary>
    public string? TokenizerFingerprint { get; init; }

    public LossEncoding Encoding { get; init; } = LossEncoding.F16;

    /// <summary>Also fetch the entropy of the reference's distribution at each token.</summary>
    public bool Entropy { get; init; }

    /// <summary>Also fetch this many most likely tokens with their log-probabilities, at each token.</summary>
    public int TopK { get; init; }

    internal ScoreFormat Format => new(Encoding, Entropy, TopK);

    /// <summary>Sent as "authorization: Bearer KEY".</summary>
    public string? ApiKey { get; init; }

    /// <summary>PEM file with the authorities that scorers' certificates come from; null: the system's.</summary>
    public string? CertificateAuthority { get; init; }

    /// <summary>PEM files of the client's own certificate and key, for mutual TLS.</summary>
    public string? ClientCertificate { get; init; }

    public string? ClientKey { get; init; }

    /// <summary>Blocks (of about 16,384 tokens) that are fetched before they are asked for, per shard.</summary>
    public int PrefetchBlocks { get; init; } = 8;

    /// <summary>How long to try to reach the first scorer before giving up.</summary>
    public TimeSpan ConnectTimeout { get; init; } = TimeSpan.FromSeconds(15);

    /// <summary>How long a scorer may say nothing at all before it counts as dead. A scorer that has nothing to send says so every 5 s.</summary>
    public TimeSpan StallTimeout { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>How long to go on without any progress, over all scorers and retries, before giving up.</summary>
    public TimeSpan Budget { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>When a scorer has not answered a new stream for this long, another one is asked too and the first answer is taken.</summary>
    public TimeSpan HedgeAfter { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>How often "dns:///" names are looked up again.</summary>
    public TimeSpan LookupInterval { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>After this long a stream moves to a scorer that has less to do, if there is one, so that new scorers get work.</summary>
    public TimeSpan StreamLifetime { get; init; } = TimeSpan.FromMinutes(10);

    /// <exception cref="RhoException">One line that names every wrong setting.</exception>
    public void Validate()
    {
        var errors = new List<string>();
        if (Addresses.Count == 0) errors.Add("no address is given; expected such as localhost:50051");
        if (TopK < 0) errors.Add($"top-k must be at least 0, not {TopK}");
        if (PrefetchBlocks < 1) errors.Add($"prefetch blocks must be at least 1, not {PrefetchBlocks}");
        if (ClientCertificate is null != ClientKey is null) errors.Add("client certificate and client key must be given together");
        foreach (var (name, time) in new[]
                 {
                     ("connect timeout", ConnectTimeout), ("stall timeout", StallTimeout), ("budget", Budget), ("hedge after", HedgeAfter),
                     ("lookup interval", LookupInterval), ("stream lifetime", StreamLifetime),
                 })
        {
            if (time <= TimeSpan.Zero) errors.Add($"{name} must be positive, not {time}");
        }

        if (errors.Count > 0) throw new RhoException("scorer client: " + string.Join("; ", errors));
    }
}

using Rho.Client;
using Rho.Formats;

namespace Rho.Training;

/// <summary>Losses from scorers over gRPC; the client balances over them, retries and resumes.</summary>
internal sealed class ScorerSource : IReferenceSource
{
    private readonly ScorerClient _client;
    private readonly ReferenceNeeds _needs;

    /// <param name="patience">How long the client goes on without any progress before it gives up.</param>
    /// <param name="needs">What is wanted beside losses.</param>
    public ScorerSource(ReferenceSourceSection section, string tokenizerFingerprint, TimeSpan patience, ReferenceNeeds needs) => (_needs, _client) = (needs, new ScorerClient(new ScorerClientOptions
    {
        Entropy = needs.Entropies,
        TopK = needs.TopK,
        Addresses = section.Scorers!,
        Reference = section.Fingerprint,
        TokenizerFingerprint = tokenizerFingerprint,
        ApiKey = section.ApiKeyFile is { } file ? ReadKey(file) : null,
        CertificateAuthority = section.CertificateAuthority,
        ClientCertificate = section.ClientCertificate,
        ClientKey = section.ClientKey,
        Budget = patience > TimeSpan.FromSeconds(1) ? patience : TimeSpan.FromSeconds(1),
        ConnectTimeout = TimeSpan.FromSeconds(Math.Clamp(patience.TotalSeconds, 1, 15)),
    }));

    public bool GivesEntropies => _needs.Entropies;

    public int TopK => _needs.TopK;

    public async Task<ReferenceIdentity> IdentifyAsync(CancellationToken cancellation)
    {
        var reference = await _client.DescribeAsync(cancellation);
        if (_needs.TopK > reference.MaxTopK) throw new MismatchException($"objective.selector.top_k is {_needs.TopK}; the scorers' reference ({reference.Description}) gives up to {reference.MaxTopK}");
        if (_needs.Entropies && reference.MaxTopK == 0) throw new MismatchException($"the scorers' reference ({reference.Description}) offers no entropies, which the selector needs");
        return new ReferenceIdentity(reference.Fingerprint, reference.TokenizerFingerprint, reference.VocabularySize, reference.ContextLength, reference.Description);
    }

    public IAsyncEnumerable<LossBlock> ReadAsync(TokenShard shard, bool documentsSeeEachOther, long firstSequence, CancellationToken cancellation) =>
        _client.ScoreShardAsync(shard, documentsSeeEachOther, firstSequence, cancellation);

    public ValueTask DisposeAsync() => _client.DisposeAsync();

    private static string ReadKey(string path)
    {
        try
        {
            return File.ReadLines(path).FirstOrDefault()?.Trim() is { Length: > 0 } key ? key : throw new RhoException($"{path}: has no API key on its first line");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{path}: the API key cannot be read: {e.Message}", e);
        }
    }
}

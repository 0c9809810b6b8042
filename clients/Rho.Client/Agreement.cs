using System.Runtime.InteropServices;
using Grpc.Core;
using Rho.Formats;
using Rho.Protocol.Scoring.V1;

namespace Rho.Client;

/// <summary>What replicas have to serve before anything of theirs is used: what the options name, and what the first of them described.</summary>
internal sealed class Agreement(ScorerClientOptions options, Metadata headers)
{
    private volatile ReferenceDescription? _reference;

    /// <summary>What the first replica described; null before.</summary>
    public ReferenceDescription? Reference => _reference;

    /// <summary>On first use of a replica: it serves what this client wants and what its other replicas serve.</summary>
    /// <exception cref="MismatchException">It computes other losses than the replicas before it.</exception>
    public async Task WithAsync(Replica replica, CancellationToken cancellation)
    {
        if (replica.HasAgreed) return;
        var request = new DescribeRequest { Reference = _reference?.Fingerprint ?? options.Reference ?? "", TokenizerFingerprint = options.TokenizerFingerprint ?? "" };
        var response = await replica.Client.DescribeAsync(request, headers, DateTime.UtcNow + options.ConnectTimeout, cancellation).ConfigureAwait(false);
        var description = new ReferenceDescription(
            response.Reference, response.TokenizerFingerprint, response.VocabularySize, response.ContextLength, response.Description,
            [.. response.Encodings.Select(encoding => encoding.ToDomain()).OfType<Formats.LossEncoding>()], MemoryMarshal.Cast<byte, float>(response.ProbeLosses.Span).ToArray(),
            response.ChunkTokens, response.LeaseChunks, response.MaxTopK);
        if (_reference is { } other && !ProbeBatch.Agree([.. other.ProbeLosses], [.. description.ProbeLosses]))
        {
            throw new MismatchException(
                $"scorer {replica.Address} claims reference {description.Fingerprint} but computes other losses than the scorers before it (probe batch differs): it or they are broken; nothing of it was used");
        }

        _reference ??= description;
        replica.HasAgreed = true;
    }
}

using Rho.Formats;

namespace Rho.Scoring;

/// <summary>What is kept of each token: its loss in one encoding and, on request, more of the reference's distribution.</summary>
/// <param name="Encoding">How a loss is stored.</param>
/// <param name="Entropy">Also the entropy of the next-token distribution, in nats (F16).</param>
/// <param name="TopK">Also this many most likely next tokens (U32) with their log-probabilities (F16).</param>
public readonly record struct ScoreFormat(LossEncoding Encoding, bool Entropy = false, int TopK = 0)
{
    public int BytesPerToken => LossCodec.BytesPerLoss(Encoding) + (Entropy ? sizeof(ushort) : 0) + TopK * (sizeof(uint) + sizeof(ushort));

    public bool IsMoreThanLosses => Entropy || TopK > 0;

    /// <summary>The format's part of file names and keys, such as "f16", "log8-e" or "f32-e-k8".</summary>
    public override string ToString() =>
        Encoding.ToString().ToLowerInvariant() + (Entropy ? "-e" : "") + (TopK > 0 ? $"-k{TopK}" : "");
}

/// <summary>
/// The scores of some consecutive positions as they are cached and streamed. Columns follow each other: losses [n],
/// entropies [n], top ids [n, k], top log-probabilities [n, k], each little-endian in the encoding that the format says.
/// </summary>
public readonly struct EncodedScores
{
    private readonly ScoreFormat _format;
    private readonly ReadOnlyMemory<byte> _payload;

    public EncodedScores(ScoreFormat format, ReadOnlyMemory<byte> payload)
    {
        if (payload.Length % format.BytesPerToken != 0)
            throw new ArgumentException($"{payload.Length} bytes are no whole number of tokens in format {format}", nameof(payload));
        _format = format;
        _payload = payload;
    }

    public int Tokens => _payload.Length / _format.BytesPerToken;

    public ReadOnlyMemory<byte> Losses(int first, int count) => Column(0, LossBytes, first, count);

    public ReadOnlyMemory<byte> Entropies(int first, int count) => Column(LossBytes, EntropyBytes, first, count);

    public ReadOnlyMemory<byte> TopIds(int first, int count) => Column(LossBytes + EntropyBytes, TopIdBytes, first, count);

    public ReadOnlyMemory<byte> TopLogProbabilities(int first, int count) =>
        Column(LossBytes + EntropyBytes + TopIdBytes, TopLogProbabilityBytes, first, count);

    private int LossBytes => LossCodec.BytesPerLoss(_format.Encoding);

    private int EntropyBytes => _format.Entropy ? sizeof(ushort) : 0;

    private int TopIdBytes => _format.TopK * sizeof(uint);

    private int TopLogProbabilityBytes => _format.TopK * sizeof(ushort);

    private ReadOnlyMemory<byte> Column(int before, int width, int first, int count) =>
        _payload.Slice(before * Tokens + first * width, count * width);
}

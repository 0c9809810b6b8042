using System.Runtime.InteropServices;

namespace Rho.Formats;

/// <summary>
/// What a reference says of consecutive tokens, one after another: the loss of each and, where it was asked for, the entropy and the
/// most likely tokens of the distribution that the loss is taken from.
/// </summary>
/// <param name="Losses">-ln p(token | tokens before it), nats; NaN where there is none. [tokens]</param>
public sealed record TokenScores(float[] Losses)
{
    /// <summary>-sum_v p_v ln p_v, nats; NaN where there is no loss. [tokens], or empty where not asked for.</summary>
    public float[] Entropies { get; init; } = [];

    /// <summary>The most likely tokens, the likeliest first, of equal ones the lower id; 0 where there is no loss. [tokens, k], or empty.</summary>
    public int[] TopIds { get; init; } = [];

    /// <summary>ln p of <see cref="TopIds"/>, nats; NaN where there is no loss. [tokens, k]</summary>
    public float[] TopLogProbabilities { get; init; } = [];

    public int Tokens => Losses.Length;

    /// <summary>k of the most likely tokens; 0 for none.</summary>
    public int TopK => Losses.Length == 0 ? 0 : TopIds.Length / Losses.Length;

    public bool IsMoreThanLosses => Entropies.Length > 0 || TopIds.Length > 0;

    /// <summary>Room for the scores of a number of tokens.</summary>
    public static TokenScores Room(int tokens, bool entropies = false, int topK = 0) => new(new float[tokens])
    {
        Entropies = entropies ? new float[tokens] : [],
        TopIds = topK > 0 ? new int[tokens * topK] : [],
        TopLogProbabilities = topK > 0 ? new float[tokens * topK] : [],
    };

    /// <summary>Makes all tokens ones without a loss.</summary>
    public void Clear()
    {
        Array.Fill(Losses, float.NaN);
        Array.Fill(Entropies, float.NaN);
        Array.Clear(TopIds);
        Array.Fill(TopLogProbabilities, float.NaN);
    }

    /// <summary>A copy of some tokens' scores.</summary>
    public TokenScores Slice(int first, int count)
    {
        if (first == 0 && count == Tokens) return this;
        var slice = Room(count, Entropies.Length > 0, TopK);
        CopyTo(first, count, slice, 0);
        return slice;
    }

    /// <summary>Copies what the target has room for: it may do without entropies, or with fewer of the most likely tokens.</summary>
    public void CopyTo(int first, int count, TokenScores target, int at)
    {
        Losses.AsSpan(first, count).CopyTo(target.Losses.AsSpan(at));
        if (target.Entropies.Length > 0) Entropies.AsSpan(first, count).CopyTo(target.Entropies.AsSpan(at));
        var (own, wanted) = (TopK, target.TopK);
        if (wanted == 0) return;
        for (var i = 0; i < (own == wanted ? 1 : count); i++)
        {
            var length = own == wanted ? count * wanted : wanted;
            TopIds.AsSpan((first + i) * own, length).CopyTo(target.TopIds.AsSpan((at + i) * wanted));
            TopLogProbabilities.AsSpan((first + i) * own, length).CopyTo(target.TopLogProbabilities.AsSpan((at + i) * wanted));
        }
    }

    /// <summary>Some tokens' scores as they are stored and sent, see <see cref="EncodedScores"/>.</summary>
    public byte[] Encode(ScoreFormat format, int first, int count)
    {
        var payload = new byte[count * format.BytesPerToken];
        var at = payload.AsSpan();
        LossCodec.Encode(Losses.AsSpan(first, count), format.Encoding, Take(ref at, count * LossCodec.BytesPerLoss(format.Encoding)));
        if (format.Entropy) LossCodec.Encode(Entropies.AsSpan(first, count), LossEncoding.F16, Take(ref at, count * sizeof(ushort)));
        var (start, top) = (first * format.TopK, count * format.TopK);
        MemoryMarshal.AsBytes(TopIds.AsSpan(start, top)).CopyTo(Take(ref at, top * sizeof(uint)));
        LossCodec.Encode(TopLogProbabilities.AsSpan(start, top), LossEncoding.F16, at);
        return payload;

        static Span<byte> Take(ref Span<byte> rest, int bytes)
        {
            var taken = rest[..bytes];
            rest = rest[bytes..];
            return taken;
        }
    }

    /// <summary>Reads columns as <see cref="ScoreFormat.Columns"/> lists them into these scores, from token <paramref name="at"/> on.</summary>
    internal void Decode(
        LossEncoding encoding, int at, ReadOnlySpan<byte> losses, ReadOnlySpan<byte> entropies, ReadOnlySpan<byte> topIds, ReadOnlySpan<byte> topLogProbabilities)
    {
        var count = losses.Length / LossCodec.BytesPerLoss(encoding);
        LossCodec.Decode(losses, encoding, Losses.AsSpan(at, count));
        if (entropies.Length > 0) LossCodec.Decode(entropies, LossEncoding.F16, Entropies.AsSpan(at, count));
        if (topIds.IsEmpty) return;
        MemoryMarshal.Cast<byte, int>(topIds).CopyTo(TopIds.AsSpan(at * TopK));
        LossCodec.Decode(topLogProbabilities, LossEncoding.F16, TopLogProbabilities.AsSpan(at * TopK, count * TopK));
    }
}

/// <summary>One of the arrays that scores are stored as.</summary>
/// <param name="Name">As a tensor of a file.</param>
/// <param name="TopK">The last dimension; 0: the array has one number per token.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct ScoreColumn(string Name, ElementType Type, int TopK = 0)
{
    public int BytesPerToken => Type.Size() * Math.Max(1, TopK);

    public long[] Shape(long sequences, int length) => TopK == 0 ? [sequences, length] : [sequences, length, TopK];
}

/// <summary>What is kept of each token: its loss in one encoding and, on request, more of the reference's distribution.</summary>
/// <param name="Encoding">How a loss is stored.</param>
/// <param name="Entropy">Also the entropy of the next-token distribution, in nats (F16).</param>
/// <param name="TopK">Also this many most likely next tokens (U32) with their log-probabilities (F16).</param>
public readonly record struct ScoreFormat(LossEncoding Encoding, bool Entropy = false, int TopK = 0)
{
    internal const string EntropyName = "entropy", TopIdsName = "top_ids", TopLogProbabilitiesName = "top_log_probabilities";

    public int BytesPerToken => LossCodec.BytesPerLoss(Encoding) + (Entropy ? sizeof(ushort) : 0) + TopK * (sizeof(uint) + sizeof(ushort));

    public bool IsMoreThanLosses => Entropy || TopK > 0;

    /// <summary>The arrays in the order of <see cref="EncodedScores"/>, with the names and types that they have in files.</summary>
    public IEnumerable<ScoreColumn> Columns
    {
        get
        {
            yield return new("loss", Encoding switch { LossEncoding.F16 => ElementType.F16, LossEncoding.F32 => ElementType.F32, _ => ElementType.U8 });
            if (Entropy) yield return new(EntropyName, ElementType.F16);
            if (TopK == 0) yield break;
            yield return new(TopIdsName, ElementType.U32, TopK);
            yield return new(TopLogProbabilitiesName, ElementType.F16, TopK);
        }
    }

    /// <summary>The format's part of file names and keys, such as "f16", "log8-e" or "f32-e-k8".</summary>
    public override string ToString() => LossCodec.Name(Encoding) + (Entropy ? "-e" : "") + (TopK > 0 ? $"-k{TopK}" : "");
}

/// <summary>
/// <see cref="TokenScores"/> as they are stored and sent: columns losses [n], entropies [n], top ids [n, k], top log-probabilities
/// [n, k], each little-endian in the encoding that the format says. A payload has the columns one after another.
/// </summary>
[StructLayout(LayoutKind.Auto)]
public readonly struct EncodedScores
{
    /// <exception cref="ArgumentException">The payload is no whole number of tokens.</exception>
    public EncodedScores(ScoreFormat format, ReadOnlyMemory<byte> payload)
    {
        Format = format;
        Tokens = payload.Length / format.BytesPerToken;
        if (payload.Length != Tokens * format.BytesPerToken)
            throw new ArgumentException($"{payload.Length} bytes are no whole number of tokens in format {format}", nameof(payload));
        var at = Tokens * LossCodec.BytesPerLoss(format.Encoding);
        Losses = payload[..at];
        var entropies = format.Entropy ? Tokens * sizeof(ushort) : 0;
        Entropies = payload.Slice(at, entropies);
        at += entropies;
        TopIds = payload.Slice(at, Tokens * format.TopK * sizeof(uint));
        TopLogProbabilities = payload[(at + TopIds.Length)..];
    }

    /// <exception cref="ArgumentException">The columns are not of one number of tokens.</exception>
    public EncodedScores(ScoreFormat format, ReadOnlyMemory<byte> losses, ReadOnlyMemory<byte> entropies, ReadOnlyMemory<byte> topIds, ReadOnlyMemory<byte> topLogProbabilities)
    {
        Format = format;
        Tokens = losses.Length / LossCodec.BytesPerLoss(format.Encoding);
        var agree = losses.Length == Tokens * LossCodec.BytesPerLoss(format.Encoding) && entropies.Length == (format.Entropy ? Tokens * sizeof(ushort) : 0)
            && topIds.Length == Tokens * format.TopK * sizeof(uint) && topLogProbabilities.Length == Tokens * format.TopK * sizeof(ushort);
        if (!agree)
        {
            throw new ArgumentException(
                $"{losses.Length}, {entropies.Length}, {topIds.Length} and {topLogProbabilities.Length} bytes of losses, entropies, likely tokens and their log-probabilities "
                + $"are not of the same number of tokens in format {format}");
        }

        (Losses, Entropies, TopIds, TopLogProbabilities) = (losses, entropies, topIds, topLogProbabilities);
    }

    public ScoreFormat Format { get; }

    public int Tokens { get; }

    /// <summary>[Tokens] in the format's encoding.</summary>
    public ReadOnlyMemory<byte> Losses { get; }

    /// <summary>[Tokens] F16, nats; empty unless the format has them.</summary>
    public ReadOnlyMemory<byte> Entropies { get; }

    /// <summary>[Tokens, k] U32; empty unless the format has them.</summary>
    public ReadOnlyMemory<byte> TopIds { get; }

    /// <summary>[Tokens, k] F16, nats.</summary>
    public ReadOnlyMemory<byte> TopLogProbabilities { get; }

    /// <summary>Some of the tokens; nothing is copied.</summary>
    public EncodedScores Slice(int first, int count)
    {
        var tokens = Tokens;
        return new(Format, Part(Losses), Part(Entropies), Part(TopIds), Part(TopLogProbabilities));

        ReadOnlyMemory<byte> Part(ReadOnlyMemory<byte> column)
        {
            var width = column.Length / Math.Max(1, tokens);
            return column.Slice(first * width, count * width);
        }
    }

    /// <summary>These and the scores of the tokens after them.</summary>
    public EncodedScores With(EncodedScores next)
    {
        return new(Format, Join(Losses, next.Losses), Join(Entropies, next.Entropies), Join(TopIds, next.TopIds), Join(TopLogProbabilities, next.TopLogProbabilities));

        static ReadOnlyMemory<byte> Join(ReadOnlyMemory<byte> first, ReadOnlyMemory<byte> second) => second.Length == 0 ? first : (byte[])[.. first.Span, .. second.Span];
    }

    public TokenScores Decode()
    {
        var scores = TokenScores.Room(Tokens, Format.Entropy, Format.TopK);
        DecodeTo(scores, 0);
        return scores;
    }

    /// <param name="scores">What the format has; filled from token <paramref name="at"/> on.</param>
    public void DecodeTo(TokenScores scores, int at) =>
        scores.Decode(Format.Encoding, at, Losses.Span, Entropies.Span, TopIds.Span, TopLogProbabilities.Span);

    /// <summary>The columns in the order of <see cref="ScoreFormat.Columns"/>.</summary>
    internal IEnumerable<ReadOnlyMemory<byte>> Columns()
    {
        yield return Losses;
        if (Format.Entropy) yield return Entropies;
        if (Format.TopK == 0) yield break;
        yield return TopIds;
        yield return TopLogProbabilities;
    }
}

/// <summary>
/// The batch by which two who claim the same reference are compared (scoring.proto, DescribeResponse.probe_losses): every service and
/// client can make it, and machines that round differently still agree on it.
/// </summary>
public static class ProbeBatch
{
    public const int Sequences = 4;

    private const int MaxLength = 64;

    /// <summary>Tokens of each sequence.</summary>
    public static int Length(int contextLength) => Math.Min(MaxLength, contextLength);

    /// <summary>[Sequences * length] token ids.</summary>
    public static int[] Tokens(int vocabularySize, int length)
    {
        var tokens = new int[Sequences * length];
        for (var i = 0; i < tokens.Length; i++)
        {
            var x = unchecked((ulong)(i + 1) * 0x9E3779B97F4A7C15UL) >> 16;
            tokens[i] = (int)((x ^ (x >> 29)) % (ulong)vocabularySize);
        }

        return tokens;
    }

    /// <summary>Whether losses of the batch can come from one model: within 0.05 nats + 2 % of each other, no loss in the same places.</summary>
    public static bool Agree(ReadOnlySpan<float> first, ReadOnlySpan<float> second)
    {
        if (first.Length != second.Length) return false;
        for (var i = 0; i < first.Length; i++)
        {
            if (float.IsNaN(first[i]) != float.IsNaN(second[i])) return false;
            if (MathF.Abs(first[i] - second[i]) > 0.05f + 0.02f * MathF.Abs(first[i])) return false;
        }

        return true;
    }
}

namespace Rho.Protocol.Scoring.V1;

/// <summary>Between score formats and the messages of scoring.proto.</summary>
public static class ScoreFormats
{
    public static LossEncoding ToWire(this Formats.LossEncoding encoding) => encoding switch
    {
        Formats.LossEncoding.F16 => LossEncoding.F16,
        Formats.LossEncoding.F32 => LossEncoding.F32,
        Formats.LossEncoding.Log8 => LossEncoding.Log8,
        _ => throw new ArgumentOutOfRangeException(nameof(encoding), encoding, message: null),
    };

    /// <summary>Null for an encoding that is not known here; F16 for one that is not named.</summary>
    public static Formats.LossEncoding? ToDomain(this LossEncoding encoding) => encoding switch
    {
        LossEncoding.Unspecified or LossEncoding.F16 => Formats.LossEncoding.F16,
        LossEncoding.F32 => Formats.LossEncoding.F32,
        LossEncoding.Log8 => Formats.LossEncoding.Log8,
        _ => null,
    };

    public static ScoreFormat ToWire(this Formats.ScoreFormat format) => new() { Encoding = format.Encoding.ToWire(), Entropy = format.Entropy, TopK = format.TopK };

    /// <summary>Of a message that may be missing: then F16 losses alone.</summary>
    /// <exception cref="RhoException">The encoding is not known.</exception>
    public static Formats.ScoreFormat ToDomain(this ScoreFormat? format) => new(
        (format?.Encoding ?? default).ToDomain() ?? throw new RhoException($"format.encoding {(int)format!.Encoding} is not known; known are F16 (1), F32 (2), LOG8 (3)"),
        format?.Entropy ?? false, format?.TopK ?? 0);
}

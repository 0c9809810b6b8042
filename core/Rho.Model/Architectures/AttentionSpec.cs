using Rho.Kernels;
using static TorchSharp.torch;

namespace Rho.Model.Architectures;

/// <summary>What a layer's attention computes, in numbers.</summary>
/// <param name="Scale">on scores</param>
/// <param name="Rotation">of queries and keys by their positions; null for none</param>
/// <param name="Window">tokens that a token sees at most, itself included; null for all before it</param>
/// <param name="SoftCap">scores s become cap * tanh(s / cap)</param>
public sealed record AttentionSpec(int Heads, int KeyValueHeads, int HeadSize, double Scale, Rotation? Rotation, int? Window = null, double? SoftCap = null)
{
    /// <summary>Heads of a row: queries, keys and values.</summary>
    internal int Columns => Heads + (2 * KeyValueHeads);
    internal int Queries => Heads * HeadSize;
    internal int KeysValues => 2 * KeyValueHeads * HeadSize;
    internal int PerGroup => Heads / KeyValueHeads;
}

/// <summary>Attention over pieces of sequences, which lie one after another.</summary>
/// <param name="FirstSeen">as <see cref="Visibility.FirstSeen"/>: of the whole batch</param>
/// <param name="FirstRow">which of the batch's tokens the first row is</param>
internal sealed record AttentionPieces(AttentionSpec Spec, Angles Angles, int[]? FirstSeen, int FirstRow, IReadOnlyList<Piece> Pieces)
{
    internal AttentionShape Shape => new(
        Spec.Heads, Spec.KeyValueHeads, Spec.HeadSize, (float)Spec.Scale, (float)(Spec.SoftCap ?? 0), Angles.Size, Angles.Cos, Angles.Sin, FirstSeen, FirstRow);
}

/// <summary>How rotary angles are stretched beyond the trained context (Hugging Face's rope_scaling).</summary>
/// <param name="Type">linear, dynamic, llama3, yarn or longrope</param>
public sealed record RopeScaling(string Type, double Factor, double LowFrequencyFactor, double HighFrequencyFactor, int OriginalContextLength,
    double BetaFast, double BetaSlow, double? AttentionFactor)
{
    /// <summary>longrope: what divides each frequency in sequences of up to <see cref="OriginalContextLength"/> tokens, and in longer ones. [rotated size / 2]</summary>
    public ValueList<double> ShortFactors { get; init; }
    public ValueList<double> LongFactors { get; init; }
}

/// <summary>Rotary position embedding (Su et al., RoFormer) in Hugging Face's half-split layout, with its context extensions.</summary>
/// <param name="Size">numbers of a head that are rotated, the first ones</param>
/// <param name="ContextLength">of the model, in tokens</param>
public sealed record Rotation(int Size, double Theta, RopeScaling? Scaling, int ContextLength)
{
    /// <summary>Whether a sequence is so long that all of its positions have other angles than those of shorter ones: dynamic and longrope.</summary>
    internal bool IsStretched(int length) => Scaling?.Type switch { "dynamic" => length > ContextLength, "longrope" => length > Scaling.OriginalContextLength, _ => false };

    /// <summary>Cosines and sines per position. Both [positions, size / 2], float32.</summary>
    /// <param name="length">of the sequence, in tokens: decides the angles where <see cref="IsStretched"/></param>
    public (float[] Cos, float[] Sin) Tables(int positions, int length)
    {
        var half = Size / 2;
        var (frequencies, factor) = Frequencies(length);
        var (cos, sin) = (new float[positions * half], new float[positions * half]);
        for (var t = 0; t < positions; t++)
        {
            for (var i = 0; i < half; i++)
            {
                // Angles are float32 in the implementations that trained the models.
                var angle = t * (float)frequencies[i];
                cos[(t * half) + i] = (float)(Math.Cos(angle) * factor);
                sin[(t * half) + i] = (float)(Math.Sin(angle) * factor);
            }
        }

        return (cos, sin);
    }

    /// <summary>Inverse frequencies theta^(-2i / size), stretched as the scaling says, and the factor on cosines and sines.</summary>
    internal (double[] Frequencies, double Factor) Frequencies(int length)
    {
        var half = Size / 2;
        var (theta, scaling) = (Theta, Scaling);
        if (scaling is { Type: "dynamic" } && IsStretched(length))
            theta *= Math.Pow((scaling.Factor * length / ContextLength) - (scaling.Factor - 1), Size / (Size - 2.0));
        var frequencies = new double[half];
        for (var i = 0; i < half; i++) frequencies[i] = 1 / Math.Pow(theta, 2.0 * i / Size);
        switch (scaling?.Type)
        {
            case "linear":
                for (var i = 0; i < half; i++) frequencies[i] /= scaling.Factor;
                return (frequencies, 1);

            case "llama3":
                for (var i = 0; i < half; i++)
                {
                    var wavelength = 2 * Math.PI / frequencies[i];
                    if (wavelength < scaling.OriginalContextLength / scaling.HighFrequencyFactor) continue;
                    var smooth = ((scaling.OriginalContextLength / wavelength) - scaling.LowFrequencyFactor) / (scaling.HighFrequencyFactor - scaling.LowFrequencyFactor);
                    frequencies[i] = wavelength > scaling.OriginalContextLength / scaling.LowFrequencyFactor
                        ? frequencies[i] / scaling.Factor
                        : ((1 - smooth) * frequencies[i] / scaling.Factor) + (smooth * frequencies[i]);
                }

                return (frequencies, 1);

            case "yarn":
                double Dimension(double rotations) => Size * Math.Log(scaling.OriginalContextLength / (rotations * 2 * Math.PI)) / (2 * Math.Log(theta));
                var low = Math.Max(Math.Floor(Dimension(scaling.BetaFast)), 0);
                var high = Math.Min(Math.Ceiling(Dimension(scaling.BetaSlow)), Size - 1);
                for (var i = 0; i < half; i++)
                {
                    var ramp = Math.Clamp((i - low) / (high == low ? 0.001 : high - low), 0, 1);
                    frequencies[i] = (frequencies[i] / scaling.Factor * ramp) + (frequencies[i] * (1 - ramp));
                }

                return (frequencies, scaling.AttentionFactor ?? (scaling.Factor <= 1 ? 1 : (0.1 * Math.Log(scaling.Factor)) + 1));

            case "longrope":
                var factors = IsStretched(length) ? scaling.LongFactors : scaling.ShortFactors;
                for (var i = 0; i < half; i++) frequencies[i] /= factors[i];
                return (frequencies, scaling.AttentionFactor ?? (scaling.Factor <= 1 ? 1 : Math.Sqrt(1 + (Math.Log(scaling.Factor) / Math.Log(scaling.OriginalContextLength)))));

            default:
                return (frequencies, 1);
        }
    }
}

/// <summary>Cosines and sines of positions, ready for kernels. None, empty, where nothing is rotated.</summary>
/// <param name="Size">numbers of a head that are rotated</param>
/// <param name="Cos">[positions, size / 2]</param>
/// <param name="Sin">[positions, size / 2]</param>
internal sealed record Angles(int Size, float[] Cos, float[] Sin)
{
    private static readonly Angles s_none = new(0, [], []);

    /// <summary>Rotates the first numbers of each head. [.., rows, heads, H], of positions from <paramref name="first"/> on</summary>
    internal Tensor Rotate(Tensor x, int first, int rows, bool back = false)
    {
        if (Size == 0) return x;
        var half = Size / 2;
        Tensor Table(float[] values) => tensor(values.AsSpan(first * half, rows * half).ToArray(), [rows, 1, half], x.dtype, x.device);
        return Rotate(x, Size, Table(Cos), back ? Table(Sin).neg_() : Table(Sin));
    }

    /// <param name="cos">[rows, 1, size / 2]</param>
    /// <param name="sin">[rows, 1, size / 2]</param>
    internal static Tensor Rotate(Tensor x, int size, Tensor cos, Tensor sin)
    {
        var (half, head) = (size / 2, x.size(-1));
        var (a, b) = (x.narrow(-1, 0, half), x.narrow(-1, half, half));
        Tensor[] turned = [a.mul(cos).sub(b.mul(sin)), b.mul(cos).add(a.mul(sin))];
        return cat(size == head ? turned : [.. turned, x.narrow(-1, size, head - size)], -1);
    }

    /// <summary>Tables that are made once for as long as they suffice.</summary>
    internal sealed class Cache
    {
        private readonly Dictionary<(Rotation, bool), (Angles Angles, int Positions, int Length)> _made = [];

        /// <param name="positions">how many are needed</param>
        /// <param name="length">of the sequence that they are in</param>
        internal Angles Of(Rotation? rotation, int positions, int length)
        {
            if (rotation is null) return s_none;
            var stretched = rotation.IsStretched(length);
            // Dynamic angles are those of one length.
            var fits = _made.TryGetValue((rotation, stretched), out var made) && made.Positions >= positions && (made.Length == length || !stretched || rotation.Scaling!.Type != "dynamic");
            if (fits) return made.Angles;
            var (cos, sin) = rotation.Tables(positions, length);
            var angles = new Angles(rotation.Size, cos, sin);
            _made[(rotation, stretched)] = (angles, positions, length);
            return angles;
        }
    }
}

/// <summary>The earliest position of its sequence that each token of a batch sees.</summary>
/// <param name="lengths">of the sequences, which lie one after another</param>
/// <param name="documents">Empty, or per token its document's number; a document's tokens lie together. [tokens]</param>
internal sealed class Visibility(int[] lengths, int[] documents)
{
    private readonly Dictionary<int, int[]?> _first = [];

    internal int Longest { get; } = lengths.Length == 0 ? 0 : lengths.Max();

    /// <summary>Null where every token sees all before it. Otherwise it never falls within a sequence. [tokens]</summary>
    internal int[]? FirstSeen(int? window)
    {
        var tokens = Math.Min(window ?? Longest, Longest);
        if (_first.TryGetValue(tokens, out var known)) return known;
        return _first[tokens] = documents.Length == 0 && tokens == Longest ? null : Find(tokens);
    }

    private int[] Find(int window)
    {
        var first = new int[lengths.Sum()];
        var at = 0;
        foreach (var length in lengths)
        {
            var start = 0;
            for (var t = 0; t < length; t++)
            {
                if (t > 0 && documents.Length > 0 && documents[at + t] != documents[at + t - 1]) start = t;
                first[at + t] = Math.Max(start, t - window + 1);
            }

            at += length;
        }

        return first;
    }
}

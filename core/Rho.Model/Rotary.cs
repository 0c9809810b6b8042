using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>Rotary position embedding (Su et al., RoFormer) in Hugging Face's half-split layout, with its context extensions.</summary>
public static class Rotary
{
    /// <summary>Cosines and sines per position. Both [length, headSize / 2], float32.</summary>
    /// <param name="length">positions 0 .. length - 1; for dynamic scaling also the sequence length that decides the base</param>
    public static (float[] Cos, float[] Sin) Tables(ModelConfig config, int length)
    {
        var half = config.HeadSize / 2;
        var (frequencies, attention) = Frequencies(config, length);
        var (cos, sin) = (new float[length * half], new float[length * half]);
        for (var t = 0; t < length; t++)
        {
            for (var i = 0; i < half; i++)
            {
                // Angles are float32 in the implementations that trained the models.
                var angle = t * (float)frequencies[i];
                cos[(t * half) + i] = (float)(Math.Cos(angle) * attention);
                sin[(t * half) + i] = (float)(Math.Sin(angle) * attention);
            }
        }

        return (cos, sin);
    }

    /// <summary>Inverse frequencies theta^(-2i / headSize), stretched as rope_scaling says, and the factor on cosines and sines.</summary>
    internal static (double[] Frequencies, double Attention) Frequencies(ModelConfig config, int length)
    {
        int size = config.HeadSize, half = size / 2;
        var theta = config.RopeTheta;
        var scaling = config.RopeScaling;
        if (scaling is { Type: "dynamic" } && length > config.ContextLength)
            theta *= Math.Pow((scaling.Factor * length / config.ContextLength) - (scaling.Factor - 1), size / (size - 2.0));
        var frequencies = new double[half];
        for (var i = 0; i < half; i++) frequencies[i] = 1 / Math.Pow(theta, 2.0 * i / size);
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
                double Dimension(double rotations) => size * Math.Log(scaling.OriginalContextLength / (rotations * 2 * Math.PI)) / (2 * Math.Log(theta));
                var low = Math.Max(Math.Floor(Dimension(scaling.BetaFast)), 0);
                var high = Math.Min(Math.Ceiling(Dimension(scaling.BetaSlow)), size - 1);
                for (var i = 0; i < half; i++)
                {
                    var ramp = Math.Clamp((i - low) / (high == low ? 0.001 : high - low), 0, 1);
                    frequencies[i] = (frequencies[i] / scaling.Factor * ramp) + (frequencies[i] * (1 - ramp));
                }

                return (frequencies, scaling.AttentionFactor ?? (scaling.Factor <= 1 ? 1 : (0.1 * Math.Log(scaling.Factor)) + 1));

            default:
                return (frequencies, 1);
        }
    }
}

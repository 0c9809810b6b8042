namespace Rho.Training;

/// <summary>Random draws that follow from seeds alone, equal on every machine and runtime.</summary>
internal struct Randomness(ulong seed)
{
    private ulong _state = seed;

    /// <summary>SplitMix64 (Steele, Lea, Flood 2014).</summary>
    public ulong Next() => Finish(_state += 0x9E3779B97F4A7C15);

    /// <summary>Uniform in [0, bound), by the high part of a product; its bias is below bound / 2^64.</summary>
    public int Below(int bound) => (int)Math.BigMul(Next(), (ulong)bound, out _);

    /// <summary>A seed for one purpose, from the run's seed and what the purpose is numbered by.</summary>
    public static ulong Derive(ulong seed, params ReadOnlySpan<ulong> parts)
    {
        foreach (var part in parts) seed = Finish(seed * 0xD1342543DE82EF95 + part + 0x9E3779B97F4A7C15);
        return seed;
    }

    /// <summary>The numbers 0 to count - 1 in random order (Fisher and Yates).</summary>
    public int[] Permutation(int count)
    {
        var order = new int[count];
        for (var i = 0; i < count; i++)
        {
            var j = Below(i + 1);
            order[i] = order[j];
            order[j] = i;
        }

        return order;
    }

    private static ulong Finish(ulong z)
    {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
}

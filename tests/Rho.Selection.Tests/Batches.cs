using FsCheck;
using FsCheck.Fluent;

namespace Rho.Selection.Tests;

/// <summary>A batch that random tests draw: losses with ties, infinities of neither kind, and positions that are no targets.</summary>
public sealed record Batch(float[] Current, float[] Reference, int Length, double Ratio)
{
    public TokenLosses Losses => new() { Current = Current, Reference = Reference, Length = Length, Seed = 7 };

    public int Sequences => Current.Length / Length;

    public float[] Select(ITokenSelector selector)
    {
        var weights = new float[Current.Length];
        selector.Select(Losses, Ratio, weights);
        return weights;
    }

    public override string ToString() =>
        $"ratio {Ratio}, length {Length}, current [{string.Join(' ', Current)}], reference [{string.Join(' ', Reference)}]";
}

public static class Batches
{
    public static Arbitrary<Batch> Any { get; } = Arb.From(
        from sequences in Gen.Choose(1, 6)
        from length in Gen.Choose(2, 24)
        from ties in Gen.Elements(2, 8, 1 << 20)
        from holes in Gen.Elements(0, 3, 10)
        from ratio in Gen.Choose(1, 100)
        from seed in Gen.Choose(0, int.MaxValue - 1)
        select Make(sequences, length, ties, holes, ratio / 100.0, new System.Random(seed)));

    private static Batch Make(int sequences, int length, int levels, int holes, double ratio, System.Random random)
    {
        var current = new float[sequences * length];
        var reference = new float[current.Length];
        for (var i = 0; i < current.Length; i++)
        {
            var none = i % length == 0 || random.Next(10) < holes;
            current[i] = none ? float.NaN : random.Next(levels) * (8f / levels);
            reference[i] = none ? float.NaN : random.Next(levels) * (8f / levels);
        }

        return new Batch(current, reference, length, ratio);
    }

    public static void Hold(Func<Batch, bool> property) =>
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(500), Prop.ForAll(Any, property));
}

using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>A layer's attention in numbers: causal, each group of heads with one key-value head.</summary>
/// <param name="Scale">on scores</param>
/// <param name="Cap">scores s become cap * tanh(s / cap); 0 for none</param>
/// <param name="Rotated">numbers of a head that are rotated, the first ones; 0 for none</param>
/// <param name="Cos">[positions, rotated / 2]</param>
/// <param name="Sin">[positions, rotated / 2]</param>
/// <param name="FirstSeen">Null where every token sees all before it; else the earliest position of its sequence that each token sees, which never falls within a sequence.</param>
/// <param name="FirstRow">which token of those the first row is</param>
public sealed record AttentionShape(
    int Heads, int KeyValueHeads, int HeadSize, float Scale, float Cap, int Rotated, float[] Cos, float[] Sin, int[]? FirstSeen, int FirstRow = 0)
{
    /// <summary>Rows of queries that are taken at a time.</summary>
    internal const int Rows = 8;

    /// <summary>Whether the kernels take heads of these sizes: whole tiles.</summary>
    public static bool Fits(int headSize, int rotated) => headSize % 32 == 0 && rotated % 32 == 0;

    /// <summary>Heads of a row: queries, keys and values.</summary>
    internal int Columns => Heads + (2 * KeyValueHeads);

    internal int PerGroup => Heads / KeyValueHeads;

    /// <summary>The earliest position that a row's query sees.</summary>
    internal int First(long row) => FirstSeen is null ? 0 : FirstSeen[FirstRow + row];

    /// <summary>A head's numbers at a position, turned and scaled.</summary>
    internal unsafe void Load<T>(void* head, int position, int rotated, float* cos, float* sin, float scale, float* to) where T : struct, INumberFormat
    {
        var angle = (long)position * (rotated / 2);
        RotaryRow.Turn<T, Float32>(head, to, HeadSize, rotated, cos + angle, sin + angle, scale);
    }

    /// <summary>Eight rows [8, head] to columns [head, 8], which are <paramref name="stride"/> apart.</summary>
    internal static unsafe void Transpose(float* rows, int head, float* columns, long stride)
    {
        for (var h = 0; h < head; h++)
        {
            Vector256.Create(
                rows[h], rows[head + h], rows[(2 * head) + h], rows[(3 * head) + h], rows[(4 * head) + h], rows[(5 * head) + h], rows[(6 * head) + h], rows[(7 * head) + h])
                .Store(columns + (h * stride));
        }
    }
}

namespace Rho.Model.Architectures;

/// <summary>
/// What a block is written in, over rows of activations: every engine (training, scoring, decoding) implements it. A block's input and
/// what <see cref="Add"/> gives may be used any number of times; every other result is used once, and the operation that takes it may
/// overwrite or free it.
/// </summary>
/// <typeparam name="T">an engine's rows: [rows, width]</typeparam>
public interface IOps<T>
{
    /// <summary>x / sqrt(mean(x^2) + epsilon) * weight</summary>
    T Norm(T x, Norm norm);

    /// <summary>x W^T + b. [rows, I], [O, I], [O] to [rows, O]</summary>
    T Linear(T x, Linear linear);

    /// <summary>Queries and keys normed, each in groups of its norm's width: of a head, or of all of them.</summary>
    /// <param name="qkv">[rows, (N + 2 K) * H]: queries, keys, values</param>
    T NormQueriesAndKeys(T qkv, Norm queries, Norm keys, AttentionSpec spec);

    /// <summary>softmax(scale * rotate(Q) rotate(K)^T) V, each row over the rows of its document up to itself. [rows, (N + 2 K) * H] to [rows, N * H]</summary>
    T Attend(T qkv, AttentionSpec spec);

    /// <summary>activation(gate) * up of rows that hold gate, then up. [rows, 2 F] to [rows, F]</summary>
    T Gate(T gateUp, Activation activation);

    /// <summary>sum of p_e * down_e(silu(gate_e x) * up_e x) over each row's likeliest experts e, p = softmax(router x). [rows, hidden] to [rows, hidden]</summary>
    T Experts(T x, Experts experts);

    /// <summary>x, which is used no more, + y</summary>
    T Add(T x, T y);

    /// <summary>x, which is used no more, + y W^T + b</summary>
    T AddLinear(T x, T y, Linear linear) => Add(x, Linear(y, linear));
}

/// <summary>A block's formula.</summary>
public interface IBlock
{
    /// <param name="x">the stream. [rows, hidden]</param>
    /// <returns>the stream after the block. [rows, hidden]</returns>
    T Run<T>(IOps<T> ops, T x);

    /// <summary>Null where every row takes all of the block's parameters.</summary>
    Experts? Experts => null;
}

public enum Activation
{
    /// <summary>x / (1 + exp(-x))</summary>
    Silu,

    /// <summary>x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))</summary>
    GeluTanh,
}

/// <summary>A matrix or vector of the model: one parameter, or several that lie one after another.</summary>
/// <param name="Index">among the model's weights</param>
/// <param name="Offset">in the flat buffer</param>
/// <param name="IsExact">whether it is held as the model has it even where others are of 8 bits: a router's, of which a little changes which experts are taken</param>
public sealed record Weight(int Index, long Offset, long[] Shape, bool IsExact = false)
{
    public long Count { get; } = Shape.Aggregate(1L, (product, size) => product * size);
}

/// <param name="Matrix">[outputs, inputs]</param>
/// <param name="Bias">[outputs]</param>
public sealed record Linear(Weight Matrix, Weight? Bias = null)
{
    public long Outputs => Matrix.Shape[0];
    public long Inputs => Matrix.Shape[1];
}

/// <summary>Feed-forwards of which each row takes a few.</summary>
/// <param name="Router">hidden to a number an expert</param>
/// <param name="All">gate and up, then down, of each</param>
/// <param name="PerToken">how many a row takes</param>
/// <param name="Normalized">whether the probabilities of those add up to one</param>
public sealed record Experts(Linear Router, IReadOnlyList<(Linear GateUp, Linear Down)> All, int PerToken, bool Normalized);

/// <param name="Weight">[width]</param>
/// <param name="Shift">added to the weight: 1 where checkpoints store its difference from one (Gemma)</param>
public sealed record Norm(Weight Weight, double Epsilon, int Shift = 0)
{
    public long Width => Weight.Count;
}

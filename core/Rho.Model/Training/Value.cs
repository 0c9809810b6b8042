using static TorchSharp.torch;

namespace Rho.Model.Training;

/// <summary>The gradient of some columns of a value, from <paramref name="Column"/> on, at some of its rows.</summary>
/// <param name="Data">[rows, columns]</param>
/// <param name="Shared">whether another value's gradient lies in the same memory</param>
internal sealed record GradientPart(RowSet Rows, long Column, Tensor Data, bool Shared) : IDisposable
{
    public void Dispose() => Data.Dispose();
}

/// <summary>What an operation gave: kept numbers, or how to compute them again from its operand; and, going back, its gradient.</summary>
internal sealed class Value : IDisposable
{
    private readonly Func<RowSet, Tensor>? _compute;
    private readonly Action<Value>? _backward;
    private readonly List<GradientPart> _gradient = [];
    private readonly Tensor? _besides;
    private Tensor? _kept;

    /// <param name="kept">becomes this object's own. [rows, width]</param>
    /// <param name="backward">hands the gradient on</param>
    /// <param name="besides">what else the backward needs; this object's own too</param>
    internal Value(Tensor kept, Action<Value>? backward, Tensor? besides = null) =>
        (_kept, _backward, _besides) = (kept.DetachFromDisposeScope(), backward, besides?.DetachFromDisposeScope());

    /// <param name="compute">gives rows, and does so again in the backward: what is cheap to make and would take much memory</param>
    internal Value(Func<RowSet, Tensor> compute, Action<Value>? backward) => (_compute, _backward) = (compute, backward);

    /// <summary>What is kept.</summary>
    internal Tensor Kept => _kept ?? throw new InvalidOperationException("a result that was taken is used again");

    /// <summary>Some rows, for the caller's dispose scope; not to be written to.</summary>
    internal Tensor Rows(RowSet rows) => _compute is null ? rows.Of(Kept) : _compute(rows);

    /// <summary>Rows of the caller's own, to write to; what is kept is freed, or handed over where the rows are all.</summary>
    internal Tensor Take(RowSet rows)
    {
        if (_compute is not null) return _compute(rows).DetachFromDisposeScope();
        var kept = Kept;
        _kept = null;
        if (rows.IsAll) return kept;
        using (kept) return rows.Of(kept).DetachFromDisposeScope();
    }

    /// <summary>Frees what is kept; the gradient stays.</summary>
    internal void Free()
    {
        _kept?.Dispose();
        _kept = null;
    }

    /// <summary>Adds to the gradient.</summary>
    /// <param name="data">becomes this object's own. [rows, columns]</param>
    internal void Accumulate(RowSet rows, Tensor data, long column = 0, bool shared = false)
    {
        var part = new GradientPart(rows, column, data.DetachFromDisposeScope(), shared);
        var i = _gradient.FindIndex(other => other.Column == column);
        if (i < 0)
        {
            _gradient.Add(part);
            return;
        }

        var (larger, smaller) = rows.Contains(_gradient[i].Rows) ? (part, _gradient[i]) : (_gradient[i], part);
        if (larger.Shared)
        {
            using var before = larger;
            larger = larger with { Data = larger.Data.clone().DetachFromDisposeScope(), Shared = false };
        }

        larger.Rows.Add(larger.Data, smaller.Rows, smaller.Data);
        smaller.Dispose();
        _gradient[i] = larger;
    }

    /// <summary>The gradient so far, which becomes the caller's; nothing where there is none.</summary>
    internal IReadOnlyList<GradientPart> TakeGradient()
    {
        GradientPart[] parts = [.. _gradient];
        _gradient.Clear();
        return parts;
    }

    internal void Backward()
    {
        if (_gradient.Count > 0) _backward?.Invoke(this);
    }

    public void Dispose()
    {
        Free();
        _besides?.Dispose();
        foreach (var part in _gradient) part.Dispose();
        _gradient.Clear();
    }
}

using System.Collections;

namespace Rho.Model;

/// <summary>Values in order, equal where all of them are.</summary>
public readonly struct ValueList<T>(params T[] values) : IReadOnlyList<T>, IEquatable<ValueList<T>>
{
    private readonly T[]? _values = values;

    public int Count => _values?.Length ?? 0;

    public T this[int index] => (_values ?? [])[index];

    public IEnumerator<T> GetEnumerator() => ((IEnumerable<T>)(_values ?? [])).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    public bool Equals(ValueList<T> other) => (_values ?? []).SequenceEqual(other._values ?? []);

    public override bool Equals(object? obj) => obj is ValueList<T> other && Equals(other);

    public override int GetHashCode() => (_values ?? []).Aggregate(0, HashCode.Combine);

    public static bool operator ==(ValueList<T> left, ValueList<T> right) => left.Equals(right);

    public static bool operator !=(ValueList<T> left, ValueList<T> right) => !left.Equals(right);

    public override string ToString() => $"[{string.Join(", ", _values ?? [])}]";
}

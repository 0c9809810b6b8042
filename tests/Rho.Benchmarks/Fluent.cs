namespace Rho.Benchmarks;

internal static class Fluent
{
    /// <summary>Does something to a value and gives it back, within an expression.</summary>
    internal static T With<T>(this T value, Action<T> action)
    {
        action(value);
        return value;
    }
}

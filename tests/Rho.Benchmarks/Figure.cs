namespace Rho.Benchmarks;

/// <summary>What one process measured.</summary>
internal readonly record struct Figure(double TokensPerSecond, double PeakMegabytes);

using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace Rho.Scoring;

/// <summary>What a team scales and alerts on. Names follow OpenTelemetry; units are in the instruments.</summary>
public sealed class ScoringMetrics : IDisposable
{
    public const string MeterName = "Rho.Scoring";

    /// <summary>Spans of streams, batches and what is asked of Redis.</summary>
    public static readonly ActivitySource Activities = new(MeterName);

    private readonly Meter _meter;
    private int _streams;

    /// <param name="meters">Ties the meter to a host, so that several hosts in a process do not add up; null: to none.</param>
    public ScoringMetrics(IMeterFactory? meters = null)
    {
        _meter = meters?.Create(MeterName) ?? new Meter(MeterName);
        TokensScored = _meter.CreateCounter<long>("rho.scoring.tokens_scored", "{token}", "Tokens that went through the model");
        PaddingTokens = _meter.CreateCounter<long>("rho.scoring.tokens_padding", "{token}", "Those of them that are padding of shards or of clients' sequences; batches add none");
        Batches = _meter.CreateCounter<long>("rho.scoring.batches", "{batch}", "Batches that went through the model");
        BatchFill = _meter.CreateHistogram(
            "rho.scoring.batch_fill", unit: null, "Tokens of a batch over the token budget", tags: null,
            new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 2] });
        BatchSeconds = _meter.CreateHistogram<double>("rho.scoring.batch_duration", "s", "Time of a batch in the model");
        CacheTokens = _meter.CreateCounter<long>("rho.scoring.tokens_from_cache", "{token}", "Tokens whose scores came from the cache, by store");
        CacheMisses = _meter.CreateCounter<long>("rho.scoring.cache_misses", "{chunk}", "Chunks that the cache did not hold");
        CacheCorrupt = _meter.CreateCounter<long>("rho.scoring.cache_corrupt", "{chunk}", "Cached chunks dropped for a wrong checksum, size or header");
        CacheFailures = _meter.CreateCounter<long>("rho.scoring.cache_failures", "{operation}", "Cache operations that failed or were refused");
        LeaseWaits = _meter.CreateHistogram<double>("rho.scoring.lease_wait", "s", "Time a stream waited for a chunk that another replica scores");
        LeasesLost = _meter.CreateCounter<long>("rho.scoring.leases_lost", "{lease}", "Leases that expired or passed on while their holder worked");
        FirstLossSeconds = _meter.CreateHistogram<double>("rho.scoring.time_to_first_loss", "s", "From a stream's opening to its first losses");
        BackPressureSeconds = _meter.CreateCounter<double>("rho.scoring.back_pressure", "s", "Time streams waited for clients to read");
        _meter.CreateObservableGauge("rho.scoring.streams", () => Volatile.Read(ref _streams), "{stream}", "Open streams");
    }

    public Counter<long> TokensScored { get; }

    public Counter<long> PaddingTokens { get; }

    public Counter<long> Batches { get; }

    public Histogram<double> BatchFill { get; }

    public Histogram<double> BatchSeconds { get; }

    public Counter<long> CacheTokens { get; }

    public Counter<long> CacheMisses { get; }

    public Counter<long> CacheCorrupt { get; }

    public Counter<long> CacheFailures { get; }

    public Histogram<double> LeaseWaits { get; }

    public Counter<long> LeasesLost { get; }

    public Histogram<double> FirstLossSeconds { get; }

    public Counter<double> BackPressureSeconds { get; }

    public int Streams => Volatile.Read(ref _streams);

    public void StreamOpened() => Interlocked.Increment(ref _streams);

    public void StreamClosed() => Interlocked.Decrement(ref _streams);

    /// <summary>Gauges whose values other parts know.</summary>
    public void Observe(string name, string? unit, string description, Func<double> value) =>
        _meter.CreateObservableGauge(name, value, unit, description);

    public void Dispose() => _meter.Dispose();
}

using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace Rho.Client;

/// <summary>Meter and activity source "Rho.Client".</summary>
internal static class ClientMetrics
{
    /// <summary>Spans of shards and of the streams that they came over; scorers' spans are their children.</summary>
    public static readonly ActivitySource Activities = new("Rho.Client");

    private static readonly Meter Meter = new("Rho.Client");

    public static readonly Counter<long> Tokens = Meter.CreateCounter<long>("rho.client.tokens", "{token}", "Tokens whose losses arrived, by source");

    public static readonly Counter<long> UploadedTokens = Meter.CreateCounter<long>("rho.client.tokens_sent", "{token}", "Tokens sent to scorers that had no cached losses");

    public static readonly Counter<long> Retries = Meter.CreateCounter<long>("rho.client.retries", "{attempt}", "Attempts after one that made no progress");

    public static readonly Counter<long> Failures = Meter.CreateCounter<long>("rho.client.failures", "{failure}", "Calls that a scorer failed, by replica");

    public static readonly Counter<long> Hedges = Meter.CreateCounter<long>("rho.client.hedges", "{stream}", "Streams also opened elsewhere because a scorer stayed silent");
}

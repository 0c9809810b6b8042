using System.Globalization;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using Rho.Hosting;
using Rho.Scoring;
using Rho.TestSupport;

// stub-scorer rate=TOKENS_PER_SECOND [redis=HOST:PORT | cache=DIR] [lease=SECONDS] [patience=SECONDS]
var settings = args.Select(argument => argument.Split('=', 2)).ToDictionary(pair => pair[0], pair => pair[1], StringComparer.Ordinal);
double Number(string name, double otherwise) => settings.TryGetValue(name, out var text) ? double.Parse(text, CultureInfo.InvariantCulture) : otherwise;

var options = new ScoringOptions
{
    Host = new RhoHostOptions { Service = "stub-scorer", GrpcPort = 0, HttpPort = 0, LogLevel = LogLevel.Warning, DrainTimeout = TimeSpan.FromSeconds(5) },
    Redis = settings.GetValueOrDefault("redis"),
    CacheDirectory = settings.GetValueOrDefault("cache"),
    LeaseTime = TimeSpan.FromSeconds(Number("lease", 2)),
    FollowPatience = TimeSpan.FromSeconds(Number("patience", 60)),
};
using var stop = new CancellationTokenSource();
using var onTerm = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
{
    context.Cancel = true;
    stop.Cancel();
});
var model = new HashModel { Rate = Number("rate", 0) };
var host = await ScoringHost.StartAsync(options, [model]);
var probe = model.TokensScored;
Console.WriteLine($"listening on {host.Address.Authority} {host.HttpAddress!.Authority}");
await Task.Delay(Timeout.Infinite, stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
await host.DisposeAsync();
Console.WriteLine($"scored {model.TokensScored - probe}");

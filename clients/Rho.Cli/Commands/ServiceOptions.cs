using System.CommandLine;
using Rho.Hosting;

namespace Rho.Cli.Commands;

/// <summary>The options that all services take: where they listen, who may call, how they stop.</summary>
internal sealed class ServiceOptions(RhoHostOptions defaults)
{
    private readonly Option<string> _bind = Of("--bind", nameof(RhoHostOptions.Bind), defaults.Bind, "IP");
    private readonly Option<string?> _certificate = Of("--tls-certificate", nameof(RhoHostOptions.TlsCertificate), defaults.TlsCertificate, "FILE");
    private readonly Option<string?> _key = Of("--tls-key", nameof(RhoHostOptions.TlsKey), defaults.TlsKey, "FILE");
    private readonly Option<string?> _authority = Of("--client-authority", nameof(RhoHostOptions.ClientAuthority), defaults.ClientAuthority, "FILE");
    private readonly Option<string?> _apiKeys = Of("--api-keys", nameof(RhoHostOptions.ApiKeysFile), defaults.ApiKeysFile, "FILE");
    private readonly Option<string?> _otlp = Of("--otlp", nameof(RhoHostOptions.OtlpEndpoint), defaults.OtlpEndpoint, "URL");
    private readonly Option<bool> _jsonLogs = Of("--json-logs", nameof(RhoHostOptions.JsonLogs), defaults.JsonLogs);
    private readonly Option<double> _drainDelay = Of("--drain-delay", nameof(RhoHostOptions.DrainDelay), defaults.DrainDelay.TotalSeconds, "SECONDS");
    private readonly Option<double> _drainTimeout = Of("--drain-timeout", nameof(RhoHostOptions.DrainTimeout), defaults.DrainTimeout.TotalSeconds, "SECONDS");

    /// <summary>Of a service that answers over gRPC alone.</summary>
    public static Option<int?> HealthPort() => new("--http") { Description = "Port for /healthz and /metrics; without it only gRPC is served", HelpName = "P" };

    public void AddTo(Command command)
    {
        foreach (var option in (Option[])[_bind, _certificate, _key, _authority, _apiKeys, _otlp, _jsonLogs, _drainDelay, _drainTimeout]) command.Add(option);
    }

    public RhoHostOptions Read(ParseResult result, int? grpcPort, int? httpPort) => defaults with
    {
        Bind = result.GetValue(_bind)!,
        GrpcPort = grpcPort,
        HttpPort = httpPort,
        TlsCertificate = result.GetValue(_certificate),
        TlsKey = result.GetValue(_key),
        ClientAuthority = result.GetValue(_authority),
        ApiKeysFile = result.GetValue(_apiKeys),
        OtlpEndpoint = result.GetValue(_otlp),
        JsonLogs = result.GetValue(_jsonLogs),
        DrainDelay = TimeSpan.FromSeconds(result.GetValue(_drainDelay)),
        DrainTimeout = TimeSpan.FromSeconds(result.GetValue(_drainTimeout)),
    };

    private static Option<T> Of<T>(string name, string property, T value, string? helpName = null) => RecordOptions<RhoHostOptions>.Create(name, property, value, helpName);
}

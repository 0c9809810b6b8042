using System.CommandLine;
using Rho.Hosting;

namespace Rho.Cli.Commands;

/// <summary>The options that all services take: where they listen, who may call, how they stop.</summary>
internal sealed class ServiceOptions(string service, double drainSeconds = 30)
{
    private readonly Option<string> _bind = new("--bind") { Description = "Address to listen on; * for all", HelpName = "IP", DefaultValueFactory = _ => "127.0.0.1" };
    private readonly Option<string?> _certificate = new("--tls-certificate") { Description = "Certificate with its chain (PEM); turns TLS on", HelpName = "FILE" };
    private readonly Option<string?> _key = new("--tls-key") { Description = "The certificate's key (PEM)", HelpName = "FILE" };
    private readonly Option<string?> _authority = new("--client-authority") { Description = "Certificates that clients' ones must come from (PEM); turns mutual TLS on", HelpName = "FILE" };
    private readonly Option<string?> _apiKeys = new("--api-keys") { Description = $"File with one API key a line; {RhoHostOptions.ApiKeysVariable} adds to it", HelpName = "FILE" };
    private readonly Option<string?> _otlp = new("--otlp") { Description = "Where traces and metrics go over OTLP", HelpName = "URL" };
    private readonly Option<bool> _jsonLogs = new("--json-logs") { Description = "Log JSON, one object a line" };
    private readonly Option<double> _drainDelay = new("--drain-delay") { Description = "Seconds in which a stopping service says 'not ready' before it refuses work", HelpName = "SECONDS" };
    private readonly Option<double> _drainTimeout = new("--drain-timeout") { Description = "Seconds that running calls may take to finish once the service stops", HelpName = "SECONDS", DefaultValueFactory = _ => drainSeconds };

    public void AddTo(Command command)
    {
        foreach (var option in (Option[])[_bind, _certificate, _key, _authority, _apiKeys, _otlp, _jsonLogs, _drainDelay, _drainTimeout]) command.Add(option);
    }

    public RhoHostOptions Read(ParseResult result, int? grpcPort, int? httpPort) => new()
    {
        Service = service,
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
}

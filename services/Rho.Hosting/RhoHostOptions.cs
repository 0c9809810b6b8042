using System.ComponentModel;
using System.Net;
using Microsoft.Extensions.Logging;

namespace Rho.Hosting;

/// <summary>How a service is reached, watched and stopped. Checked when the service is built; see <see cref="Validate"/>.</summary>
public sealed record RhoHostOptions
{
    /// <summary>The environment variable with API keys, separated by commas, beside those of <see cref="ApiKeysFile"/>.</summary>
    public const string ApiKeysVariable = "RHO_API_KEYS";

    /// <summary>The service's name in logs and telemetry, such as "rho-scorer".</summary>
    public required string Service { get; init; }

    /// <summary>The IP address to listen on, or "*" for all. Default 127.0.0.1: this machine alone.</summary>
    [Description("Address to listen on; * for all")]
    public string Bind { get; init; } = "127.0.0.1";

    /// <summary>The port for gRPC: HTTP/2, and HTTP/1.1 as well under TLS. 0 lets the system choose, null has none.</summary>
    public int? GrpcPort { get; init; }

    /// <summary>The port for HTTP/1.1 (and HTTP/2 under TLS): health, metrics and what the service maps. 0 lets the system choose, null has none.</summary>
    public int? HttpPort { get; init; }

    /// <summary>The server's certificate with its chain, a PEM file; with <see cref="TlsKey"/> it turns TLS on. Read again when the file changes.</summary>
    [Description("Certificate with its chain (PEM); turns TLS on")]
    public string? TlsCertificate { get; init; }

    /// <summary>The certificate's private key, a PEM file.</summary>
    [Description("The certificate's key (PEM)")]
    public string? TlsKey { get; init; }

    /// <summary>Certificates, in a PEM file, that clients' certificates must come from: turns mutual TLS on.</summary>
    [Description("Certificates that clients' ones must come from (PEM); turns mutual TLS on")]
    public string? ClientAuthority { get; init; }

    /// <summary>A file with one API key a line; "#" starts a comment. With keys, calls need "authorization: Bearer KEY".</summary>
    [Description($"File with one API key a line; {ApiKeysVariable} adds to it")]
    public string? ApiKeysFile { get; init; }

    /// <summary>Whether health and metrics too need a key or a client certificate. Default false: probes and scrapers have neither.</summary>
    public bool ProtectHealth { get; init; }

    /// <summary>Where traces and metrics go over OTLP, such as http://collector:4317; null leaves it to OTEL_EXPORTER_OTLP_ENDPOINT, and without that nothing is sent.</summary>
    [Description("Where traces and metrics go over OTLP")]
    public string? OtlpEndpoint { get; init; }

    /// <summary>Logs as JSON instead of one plain line each. Both go to stderr.</summary>
    [Description("Log JSON, one object a line")]
    public bool JsonLogs { get; init; }

    /// <summary>The least level that is logged. Default Information.</summary>
    public LogLevel LogLevel { get; init; } = LogLevel.Information;

    /// <summary>How long a stopping service says "not ready" before it refuses work, so that balancers notice. Default 0.</summary>
    [Description("Seconds in which a stopping service says 'not ready' before it refuses work")]
    public TimeSpan DrainDelay { get; init; }

    /// <summary>How long running calls may take to finish once the service stops; then they are cut. Default 30 s.</summary>
    [Description("Seconds that running calls may take to finish once the service stops")]
    public TimeSpan DrainTimeout { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>When work waits and none completes for this long, the service is not progressing. Default 2 minutes.</summary>
    public TimeSpan StallTimeout { get; init; } = TimeSpan.FromMinutes(2);

    /// <summary>The largest message or request body accepted, in bytes. Default 64 MiB and a little for what wraps the content.</summary>
    public int MaxMessageBytes { get; init; } = (64 << 20) + (64 << 10);

    internal bool UsesTls => TlsCertificate is not null;

    internal IPAddress? Address => Bind == "*" ? IPAddress.IPv6Any : IPAddress.TryParse(Bind, out var address) ? address : null;

    /// <summary>Throws <see cref="RhoException"/> that names every setting that cannot work, and what would.</summary>
    public void Validate()
    {
        var errors = Errors().ToList();
        if (errors.Count > 0) throw new RhoException(string.Join("; ", errors));
    }

    private IEnumerable<string> Errors()
    {
        if (string.IsNullOrWhiteSpace(Service)) yield return $"{nameof(Service)}: a name is needed, such as rho-scorer";
        if (Address is null) yield return $"{nameof(Bind)}: '{Bind}' is not an IP address; use one of this machine's, 127.0.0.1 for this machine alone, or * for all";
        if (GrpcPort is null && HttpPort is null) yield return $"{nameof(GrpcPort)}, {nameof(HttpPort)}: at least one port is needed";
        if (GrpcPort is < 0 or > 65535) yield return $"{nameof(GrpcPort)}: {GrpcPort} is not a port; ports are 1 to 65535, and 0 lets the system choose";
        if (HttpPort is < 0 or > 65535) yield return $"{nameof(HttpPort)}: {HttpPort} is not a port; ports are 1 to 65535, and 0 lets the system choose";
        if (GrpcPort == HttpPort && GrpcPort > 0) yield return $"{nameof(HttpPort)}: {HttpPort} is the gRPC port too; the two need different ports";
        if (TlsCertificate is null != TlsKey is null) yield return $"{(TlsKey is null ? nameof(TlsKey) : nameof(TlsCertificate))}: missing; TLS needs a certificate and its key";
        if (ClientAuthority is not null && TlsCertificate is null) yield return $"{nameof(ClientAuthority)}: mutual TLS needs {nameof(TlsCertificate)} and {nameof(TlsKey)} too";
        foreach (var (name, file) in new[] { (nameof(TlsCertificate), TlsCertificate), (nameof(TlsKey), TlsKey), (nameof(ClientAuthority), ClientAuthority), (nameof(ApiKeysFile), ApiKeysFile) })
            if (file is not null && !File.Exists(file)) yield return $"{name}: no file {file}";
        if (OtlpEndpoint is not null && !(Uri.TryCreate(OtlpEndpoint, UriKind.Absolute, out var uri) && uri.Scheme is "http" or "https"))
            yield return $"{nameof(OtlpEndpoint)}: '{OtlpEndpoint}' is not a URL such as http://localhost:4317";
        if (DrainDelay < TimeSpan.Zero) yield return $"{nameof(DrainDelay)}: {DrainDelay} is negative; 0 or more is right";
        if (DrainTimeout < TimeSpan.Zero) yield return $"{nameof(DrainTimeout)}: {DrainTimeout} is negative; 0 or more is right";
        if (StallTimeout <= TimeSpan.Zero) yield return $"{nameof(StallTimeout)}: {StallTimeout} is not more than 0";
        if (MaxMessageBytes < 1024) yield return $"{nameof(MaxMessageBytes)}: {MaxMessageBytes} is too little; 1024 or more is right";
    }
}

using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Server.Kestrel.Https;

namespace Rho.Hosting;

/// <summary>TLS from PEM files. New connections get the certificate that the files hold by then, so a renewal needs no restart.</summary>
internal sealed class Tls
{
    private static readonly TimeSpan LookAgain = TimeSpan.FromSeconds(10);
    private readonly Lock _lock = new();
    private readonly string _certificateFile;
    private readonly string _keyFile;
    private readonly X509Certificate2Collection? _authority;
    private readonly TimeProvider _time;
    private SslStreamCertificateContext _context;
    private (DateTime, DateTime) _written;
    private long _lookedAt;

    /// <summary>Reads the files; throws <see cref="RhoException"/> that names the setting when one cannot be used.</summary>
    public Tls(RhoHostOptions options, TimeProvider time)
    {
        _certificateFile = options.TlsCertificate!;
        _keyFile = options.TlsKey!;
        _time = time;
        _written = Written();
        _lookedAt = time.GetTimestamp();
        _context = Load();
        if (options.ClientAuthority is null) return;
        _authority = [];
        Try(nameof(RhoHostOptions.ClientAuthority), options.ClientAuthority, () => _authority.ImportFromPemFile(options.ClientAuthority));
        if (_authority.Count == 0) throw new RhoException($"{nameof(RhoHostOptions.ClientAuthority)}: {options.ClientAuthority} holds no PEM certificate");
    }

    public TlsHandshakeCallbackOptions Handshake() => new()
    {
        OnConnection = _ => ValueTask.FromResult(new SslServerAuthenticationOptions
        {
            ServerCertificateContext = Current(),
            ClientCertificateRequired = _authority is not null,
            RemoteCertificateValidationCallback = (_, certificate, chain, _) => certificate is null || IsTrusted((X509Certificate2)certificate, chain),
            ApplicationProtocols = [SslApplicationProtocol.Http2, SslApplicationProtocol.Http11],
        }),
    };

    // A client may come without a certificate: probes do, and the access check refuses all else. With one, it must be right.
    private bool IsTrusted(X509Certificate2 certificate, X509Chain? sent)
    {
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(_authority!);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.ApplicationPolicy.Add(new Oid("1.3.6.1.5.5.7.3.2", "Client Authentication"));
        chain.ChainPolicy.ExtraStore.AddRange(sent?.ChainPolicy.ExtraStore ?? []);
        return chain.Build(certificate);
    }

    private SslStreamCertificateContext Current()
    {
        lock (_lock)
        {
            if (_time.GetElapsedTime(_lookedAt) < LookAgain) return _context;
            _lookedAt = _time.GetTimestamp();
            var written = Written();
            if (written == _written) return _context;
            try
            {
                _context = Load();
                _written = written;
            }
            catch (RhoException)
            {
                // Half of a renewal, certificate without key, is seen again whole at a later look; the old pair serves until then.
            }

            return _context;
        }
    }

    private (DateTime Certificate, DateTime Key) Written() => (File.GetLastWriteTimeUtc(_certificateFile), File.GetLastWriteTimeUtc(_keyFile));

    private SslStreamCertificateContext Load()
    {
        X509Certificate2? certificate = null;
        X509Certificate2Collection chain = [];
        Try($"{nameof(RhoHostOptions.TlsCertificate)}, {nameof(RhoHostOptions.TlsKey)}", $"{_certificateFile} and {_keyFile}", () =>
        {
            certificate = X509Certificate2.CreateFromPemFile(_certificateFile, _keyFile);
            chain.ImportFromPemFile(_certificateFile);
        });
        return SslStreamCertificateContext.Create(certificate!, chain, offline: true);
    }

    private static void Try(string setting, string files, Action read)
    {
        try
        {
            read();
        }
        catch (Exception exception) when (exception is CryptographicException or IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw new RhoException($"{setting}: cannot use {files} as PEM: {exception.Message}", exception);
        }
    }
}

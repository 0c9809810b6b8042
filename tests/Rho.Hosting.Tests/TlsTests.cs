using System.Net;
using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Grpc.Core;
using Grpc.Health.V1;
using Grpc.Net.Client;
using Microsoft.Extensions.Time.Testing;

namespace Rho.Hosting.Tests;

public sealed class TlsTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("rho-tls").FullName;
    private readonly Authority _authority = new("Test authority");

    public TlsTests()
    {
        _authority.Issue("localhost").Write(Certificate, Key);
        File.WriteAllText(AuthorityFile, _authority.Certificate.ExportCertificatePem());
    }

    private string Certificate => Path.Combine(_folder, "server.pem");

    private string Key => Path.Combine(_folder, "server.key");

    private string AuthorityFile => Path.Combine(_folder, "clients.pem");

    private RhoHostOptions Options => ProbeHost.Options with { TlsCertificate = Certificate, TlsKey = Key };

    public void Dispose()
    {
        _authority.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public async Task Tls_GrpcAndHttp_OnEitherPort()
    {
        await using var host = await ProbeHost.Start(Options);
        Assert.Equal("https", host.Addresses.Grpc!.Scheme);
        foreach (var address in new[] { host.Addresses.Grpc, host.Addresses.Http! })
        {
            using var channel = GrpcChannel.ForAddress(address, new GrpcChannelOptions { HttpHandler = Handler(), DisposeHttpClient = true });
            await new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "ok" }, deadline: DateTime.UtcNow + ProbeHost.Limit);
            using var http = new HttpClient(Handler()) { BaseAddress = address };
            using var one = await http.SendAsync(new HttpRequestMessage(HttpMethod.Get, "/healthz") { Version = HttpVersion.Version11, VersionPolicy = HttpVersionPolicy.RequestVersionExact });
            using var two = await http.SendAsync(new HttpRequestMessage(HttpMethod.Get, "/healthz") { Version = HttpVersion.Version20, VersionPolicy = HttpVersionPolicy.RequestVersionExact });
            Assert.Equal((HttpStatusCode.OK, HttpStatusCode.OK), (one.StatusCode, two.StatusCode));
        }
    }

    [Fact]
    public async Task MutualTls_ClientOfTheAuthority_IsServed()
    {
        await using var host = await ProbeHost.Start(Options with { ClientAuthority = AuthorityFile });
        using var handler = Handler(_authority.Issue("trainer").Certificate);
        using var channel = GrpcChannel.ForAddress(host.Addresses.Grpc!, new GrpcChannelOptions { HttpHandler = handler });
        await new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "ok" }, deadline: DateTime.UtcNow + ProbeHost.Limit);
    }

    [Fact]
    public async Task MutualTls_ClientWithoutACertificate_GetsHealthOnly()
    {
        await using var host = await ProbeHost.Start(Options with { ClientAuthority = AuthorityFile });
        using var handler = Handler();
        using var channel = GrpcChannel.ForAddress(host.Addresses.Grpc!, new GrpcChannelOptions { HttpHandler = handler });
        await new Health.HealthClient(channel).CheckAsync(new HealthCheckRequest(), deadline: DateTime.UtcNow + ProbeHost.Limit);
        var error = await Assert.ThrowsAsync<RpcException>(() => new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "ok" }).ResponseAsync);
        Assert.Equal(StatusCode.Unauthenticated, error.StatusCode);
        Assert.Contains("client certificate", error.Status.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task MutualTls_ClientOfAnotherAuthority_IsRefused()
    {
        using var other = new Authority("Test authority");
        await using var host = await ProbeHost.Start(Options with { ClientAuthority = AuthorityFile });
        using var handler = Handler(other.Issue("trainer").Certificate);
        using var channel = GrpcChannel.ForAddress(host.Addresses.Grpc!, new GrpcChannelOptions { HttpHandler = handler });
        await Assert.ThrowsAsync<RpcException>(() => new Health.HealthClient(channel).CheckAsync(new HealthCheckRequest(), deadline: DateTime.UtcNow + ProbeHost.Limit).ResponseAsync);
    }

    [Fact]
    public void Certificate_Renewed_ServesNewConnections()
    {
        var time = new FakeTimeProvider();
        var tls = new Tls(Options, time);
        var before = Served();
        _authority.Issue("localhost").Write(Certificate, Key);
        File.SetLastWriteTimeUtc(Certificate, DateTime.UtcNow.AddMinutes(1));
        Assert.Equal(before, Served());
        time.Advance(TimeSpan.FromSeconds(11));
        var after = Served();
        Assert.NotEqual(before, after);

        // A broken file keeps the old certificate in place.
        File.WriteAllText(Key, "no key");
        time.Advance(TimeSpan.FromSeconds(11));
        Assert.Equal(after, Served());

        string Served() => tls.Handshake().OnConnection(null!).Result.ServerCertificateContext!.TargetCertificate.Thumbprint;
    }

    [Fact]
    public void UnusableFiles_NameTheSetting()
    {
        File.WriteAllText(Key, "no key");
        Assert.StartsWith("TlsCertificate, TlsKey: cannot use", Assert.Throws<RhoException>(() => ProbeHost.Build(Options)).Message, StringComparison.Ordinal);
        File.WriteAllText(AuthorityFile, "nothing");
        _authority.Issue("localhost").Write(Certificate, Key);
        Assert.StartsWith("ClientAuthority:", Assert.Throws<RhoException>(() => ProbeHost.Build(Options with { ClientAuthority = AuthorityFile })).Message, StringComparison.Ordinal);
    }

    private SocketsHttpHandler Handler(X509Certificate2? client = null) => new()
    {
        SslOptions = new SslClientAuthenticationOptions
        {
            RemoteCertificateValidationCallback = (_, certificate, _, _) => ((X509Certificate2)certificate!).Issuer == _authority.Certificate.Subject,
            ClientCertificates = client is null ? null : [client],
            LocalCertificateSelectionCallback = client is null ? null : (_, _, _, _, _) => client,
        },
    };

    /// <summary>A certificate authority for one test.</summary>
    private sealed class Authority : IDisposable
    {
        private readonly ECDsa _key = ECDsa.Create(ECCurve.NamedCurves.nistP256);

        public Authority(string name)
        {
            var request = new CertificateRequest($"CN={name}", _key, HashAlgorithmName.SHA256);
            request.CertificateExtensions.Add(new X509BasicConstraintsExtension(certificateAuthority: true, hasPathLengthConstraint: false, 0, critical: true));
            request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
            Certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(2));
        }

        public X509Certificate2 Certificate { get; }

        public Issued Issue(string name)
        {
            var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
            var request = new CertificateRequest($"CN={name}", key, HashAlgorithmName.SHA256);
            request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid("1.3.6.1.5.5.7.3.1"), new Oid("1.3.6.1.5.5.7.3.2")], critical: false));
            var certificate = request.Create(Certificate, DateTimeOffset.UtcNow.AddHours(-1), DateTimeOffset.UtcNow.AddDays(1), RandomNumberGenerator.GetBytes(8));
            return new Issued(certificate.CopyWithPrivateKey(key), key);
        }

        public void Dispose()
        {
            Certificate.Dispose();
            _key.Dispose();
        }
    }

    private sealed record Issued(X509Certificate2 Certificate, ECDsa PrivateKey)
    {
        public void Write(string certificate, string key)
        {
            File.WriteAllText(certificate, Certificate.ExportCertificatePem());
            File.WriteAllText(key, PrivateKey.ExportPkcs8PrivateKeyPem());
        }
    }
}

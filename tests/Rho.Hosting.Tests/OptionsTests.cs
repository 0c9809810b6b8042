namespace Rho.Hosting.Tests;

public class OptionsTests
{
    public static TheoryData<RhoHostOptions, string> Wrong => new()
    {
        { ProbeHost.Options with { Service = " " }, "Service:" },
        { ProbeHost.Options with { Bind = "example.org" }, "Bind: 'example.org' is not an IP address" },
        { ProbeHost.Options with { GrpcPort = null, HttpPort = null }, "GrpcPort, HttpPort: at least one" },
        { ProbeHost.Options with { GrpcPort = 70000 }, "GrpcPort: 70000 is not a port" },
        { ProbeHost.Options with { HttpPort = -1 }, "HttpPort: -1 is not a port" },
        { ProbeHost.Options with { GrpcPort = 5000, HttpPort = 5000 }, "HttpPort: 5000 is the gRPC port too" },
        { ProbeHost.Options with { TlsCertificate = "/no/such.pem" }, "TlsKey: missing" },
        { ProbeHost.Options with { TlsKey = "/no/such.pem" }, "TlsCertificate: missing" },
        { ProbeHost.Options with { TlsCertificate = "/no/such.pem", TlsKey = "/no/such.key" }, "TlsCertificate: no file /no/such.pem; TlsKey: no file /no/such.key" },
        { ProbeHost.Options with { ClientAuthority = "/no/such.pem" }, "ClientAuthority: mutual TLS needs TlsCertificate and TlsKey too" },
        { ProbeHost.Options with { ApiKeysFile = "/no/such" }, "ApiKeysFile: no file /no/such" },
        { ProbeHost.Options with { OtlpEndpoint = "collector" }, "OtlpEndpoint: 'collector' is not a URL" },
        { ProbeHost.Options with { DrainDelay = TimeSpan.FromSeconds(-1) }, "DrainDelay:" },
        { ProbeHost.Options with { DrainTimeout = TimeSpan.FromSeconds(-1) }, "DrainTimeout:" },
        { ProbeHost.Options with { StallTimeout = TimeSpan.Zero }, "StallTimeout:" },
        { ProbeHost.Options with { MaxMessageBytes = 10 }, "MaxMessageBytes:" },
    };

    [Theory]
    [MemberData(nameof(Wrong))]
    public void CreateBuilder_WrongSetting_IsNamed(RhoHostOptions options, string message) =>
        Assert.StartsWith(message, Assert.Throws<RhoException>(() => RhoHost.CreateBuilder(options)).Message, StringComparison.Ordinal);

    [Fact]
    public async Task Start_AddressOfAnotherMachine_NamesBind()
    {
        await using var app = ProbeHost.Build(ProbeHost.Options with { Bind = "192.0.2.1" });
        var error = await Assert.ThrowsAsync<RhoException>(() => app.StartRhoAsync());
        Assert.StartsWith("Bind: 192.0.2.1 is no address of this machine", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Start_AllAddresses_IsReachedOnLocalhost()
    {
        await using var host = await ProbeHost.Start(ProbeHost.Options with { Bind = "*", GrpcPort = null });
        Assert.Null(host.Addresses.Grpc);
        using var http = host.Http();
        Assert.Equal("done", await http.GetStringAsync("/probe/ok"));
    }
}

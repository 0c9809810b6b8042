using System.Net;
using System.Text.Json;
using Google.Protobuf;
using Google.Protobuf.Reflection;
using Grpc.Core;
using Grpc.Health.V1;
using Rho.TestSupport;
using static Grpc.Health.V1.HealthCheckResponse.Types;
using V1 = Grpc.Reflection.V1;
using V1Alpha = Grpc.Reflection.V1Alpha;

namespace Rho.Hosting.Tests;

public class HealthTests
{
    [Fact]
    public async Task Check_WhileSomethingIsMissing_IsNotServing()
    {
        await using var host = await ProbeHost.Start();
        using var channel = host.Channel();
        var client = new Health.HealthClient(channel);

        host.Health.NotReady("model", "loading");
        Assert.Equal(ServingStatus.NotServing, await Status(client, ""));
        Assert.Equal(ServingStatus.NotServing, await Status(client, "rho.hosting.tests.Probe"));
        host.Health.Ready("model");
        Assert.Equal(ServingStatus.Serving, await Status(client, ""));
    }

    [Fact]
    public async Task Check_UnknownService_IsNotFoundAndNamesThoseThere()
    {
        await using var host = await ProbeHost.Start();
        using var channel = host.Channel();
        var error = await Assert.ThrowsAsync<RpcException>(() => Status(new Health.HealthClient(channel), "no.such"));
        Assert.Equal(StatusCode.NotFound, error.StatusCode);
        Assert.Contains("rho.hosting.tests.Probe", error.Status.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Watch_SeesEachChangeAndTheEnd()
    {
        var host = await ProbeHost.Start();
        using var channel = host.Channel();
        using var call = new Health.HealthClient(channel).Watch(new HealthCheckRequest(), deadline: DateTime.UtcNow + ProbeHost.Limit);

        await Next(ServingStatus.Serving);
        host.Health.NotReady("model", "swapping");
        await Next(ServingStatus.NotServing);
        host.Health.Ready("model");
        await Next(ServingStatus.Serving);
        await host.DisposeAsync();
        await Next(ServingStatus.NotServing);
        Assert.False(await call.ResponseStream.MoveNext());

        async Task Next(ServingStatus expected)
        {
            Assert.True(await call.ResponseStream.MoveNext());
            Assert.Equal(expected, call.ResponseStream.Current.Status);
        }
    }

    [Fact]
    public async Task Watch_Stall_IsSeenWithoutAReport()
    {
        await using var host = await ProbeHost.Start(ProbeHost.Options with { StallTimeout = TimeSpan.FromMilliseconds(300) });
        using var channel = host.Channel();
        using var call = new Health.HealthClient(channel).Watch(new HealthCheckRequest(), deadline: DateTime.UtcNow + ProbeHost.Limit);
        Assert.True(await call.ResponseStream.MoveNext());
        host.Health.Watch("model").Added();
        Assert.True(await call.ResponseStream.MoveNext());
        Assert.Equal(ServingStatus.NotServing, call.ResponseStream.Current.Status);
    }

    [Theory]
    [InlineData("/healthz/live", HttpStatusCode.OK)]
    [InlineData("/healthz/ready", HttpStatusCode.ServiceUnavailable)]
    [InlineData("/healthz", HttpStatusCode.ServiceUnavailable)]
    public async Task Probes_NotReady_SayWhy(string path, HttpStatusCode expected)
    {
        await using var host = await ProbeHost.Start();
        using var http = host.Http();
        host.Health.NotReady("model", "loading /models/a");
        host.Health.Degraded("cache", "Redis is away");

        using var response = await http.GetAsync(path);
        using var body = JsonDocument.Parse(await response.Content.ReadAsStringAsync());
        Assert.Equal(expected, response.StatusCode);
        Assert.Equal(["model: loading /models/a", "degraded: cache: Redis is away"], body.RootElement.GetProperty("reasons").EnumerateArray().Select(reason => reason.GetString()));
        Assert.True(body.RootElement.GetProperty("live").GetBoolean());
        Assert.False(body.RootElement.GetProperty("ready").GetBoolean());
    }

    [Fact]
    public async Task PythonClient_HealthAndReflection_Work()
    {
        await using var host = await ProbeHost.Start();
        var descriptors = Path.GetTempFileName();
        var protos = new FileDescriptorSet { File = { HealthReflection.Descriptor.ToProto(), V1.ReflectionReflection.Descriptor.ToProto(), V1Alpha.ReflectionReflection.Descriptor.ToProto() } };
        await File.WriteAllBytesAsync(descriptors, protos.ToByteArray());
        var output = await DebianPython.RunAsync([Path.Combine(AppContext.BaseDirectory, "grpc_probe.py"), descriptors, $"127.0.0.1:{host.Addresses.Grpc!.Port}"]);
        File.Delete(descriptors);

        using var json = JsonDocument.Parse(output);
        var result = json.RootElement;
        Assert.Equal("SERVING", result.GetProperty("health:").GetString());
        Assert.Equal("SERVING", result.GetProperty("health:rho.hosting.tests.Probe").GetString());
        Assert.Equal("NOT_FOUND", result.GetProperty("health:no.such").GetString());
        Assert.Equal("SERVICE_UNKNOWN", result.GetProperty("watch:no.such").GetString());
        foreach (var version in new[] { "v1", "v1alpha" })
        {
            Assert.Contains("rho.hosting.tests.Probe", result.GetProperty($"{version}:services").EnumerateArray().Select(name => name.GetString()));
            Assert.Equal("probe.proto", result.GetProperty($"{version}:file").GetString());
            Assert.Equal(["Unary", "ServerStream", "ClientStream", "Duplex"], result.GetProperty($"{version}:methods").EnumerateArray().Select(name => name.GetString()));
            Assert.Equal(1, result.GetProperty($"{version}:nested").GetInt32());
            Assert.Equal((int)StatusCode.NotFound, result.GetProperty($"{version}:error").GetInt32());
            Assert.Equal(
                ["grpc.health.v1.Health 2", "grpc.reflection.v1.ServerReflection 1", "grpc.reflection.v1alpha.ServerReflection 1", "rho.hosting.tests.Probe 4"],
                result.GetProperty($"{version}:described").EnumerateObject().Select(service => $"{service.Name} {service.Value}").Order(StringComparer.Ordinal));
        }
    }

    private static async Task<ServingStatus> Status(Health.HealthClient client, string service) =>
        (await client.CheckAsync(new HealthCheckRequest { Service = service }, deadline: DateTime.UtcNow + ProbeHost.Limit)).Status;
}

using System.Net;
using Grpc.Core;
using Grpc.Health.V1;
using Grpc.Reflection.V1;

namespace Rho.Hosting.Tests;

public sealed class AccessTests : IDisposable
{
    private readonly string _file = Path.GetTempFileName();

    public AccessTests() => File.WriteAllText(_file, "# team a\nkey-one\n\n  key-two  \n");

    private RhoHostOptions Options => ProbeHost.Options with { ApiKeysFile = _file };

    public void Dispose() => File.Delete(_file);

    [Theory]
    [InlineData(null, "an API key is needed here; send authorization: Bearer KEY")]
    [InlineData("Bearer wrong", "the API key is not known here")]
    [InlineData("Bearer key-one-", "the API key is not known here")]
    [InlineData("Bearer # team a", "the API key is not known here")]
    [InlineData("Basic key-one", "the authorization header is not of the form Bearer KEY")]
    public async Task WithoutAKnownKey_CallsAreUnauthenticated(string? authorization, string message)
    {
        await using var host = await ProbeHost.Start(Options);
        using var channel = host.Channel();
        var headers = new Metadata();
        if (authorization is not null) headers.Add("authorization", authorization);
        var error = await Assert.ThrowsAsync<RpcException>(() => new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "ok" }, headers).ResponseAsync);
        Assert.Equal((StatusCode.Unauthenticated, message), (error.StatusCode, error.Status.Detail));

        using var http = host.Http();
        using var request = new HttpRequestMessage(HttpMethod.Get, "/probe/ok");
        if (authorization is not null) request.Headers.TryAddWithoutValidation("authorization", authorization);
        using var response = await http.SendAsync(request);
        Assert.Equal(HttpStatusCode.Unauthorized, response.StatusCode);
        Assert.Contains(message, await response.Content.ReadAsStringAsync(), StringComparison.Ordinal);
        Assert.Equal("Bearer", response.Headers.WwwAuthenticate.Single().Scheme);
    }

    [Theory]
    [InlineData("Bearer key-one")]
    [InlineData("bearer key-two")]
    public async Task WithAKey_CallsAreServed(string authorization)
    {
        await using var host = await ProbeHost.Start(Options);
        using var channel = host.Channel();
        using var call = new Probe.ProbeClient(channel).Duplex(new Metadata { { "authorization", authorization } });
        await call.RequestStream.WriteAsync(new ProbeRequest { Action = "ok" });
        Assert.True(await call.ResponseStream.MoveNext());

        using var http = host.Http();
        http.DefaultRequestHeaders.TryAddWithoutValidation("authorization", authorization);
        Assert.Equal("done", await http.GetStringAsync("/probe/ok"));
    }

    [Fact]
    public async Task HealthAndMetrics_NeedNoKey_ReflectionDoes()
    {
        await using var host = await ProbeHost.Start(Options);
        using var channel = host.Channel();
        using var http = host.Http();
        await new Health.HealthClient(channel).CheckAsync(new HealthCheckRequest());
        foreach (var path in new[] { "/healthz", "/healthz/live", "/healthz/ready", "/metrics" }) Assert.NotEmpty(await http.GetStringAsync(path));
        using var response = await http.GetAsync("/healthzzz");
        Assert.Equal(HttpStatusCode.Unauthorized, response.StatusCode);

        using var reflection = new ServerReflection.ServerReflectionClient(channel).ServerReflectionInfo();
        Assert.Equal(StatusCode.Unauthenticated, (await Assert.ThrowsAsync<RpcException>(() => reflection.ResponseStream.MoveNext())).StatusCode);
    }

    [Fact]
    public async Task ProtectHealth_HealthNeedsAKeyToo()
    {
        await using var host = await ProbeHost.Start(Options with { ProtectHealth = true });
        using var http = host.Http();
        using var response = await http.GetAsync("/healthz");
        Assert.Equal(HttpStatusCode.Unauthorized, response.StatusCode);
    }

    [Fact]
    public void Keys_FromFileAndVariable_AreJoined()
    {
        var keys = ApiKeys.Load(_file, "three, four");
        Assert.All(["key-one", "key-two", "three", "four"], key => Assert.True(keys.Accepts(key)));
        Assert.All(["", "three,", "# team a", "five"], key => Assert.False(keys.Accepts(key)));
        Assert.False(ApiKeys.Load(null, null).AreNeeded);
    }

    [Fact]
    public void Keys_SourceWithoutAKey_IsAnError()
    {
        File.WriteAllText(_file, "# none\n");
        Assert.StartsWith($"ApiKeysFile: {_file} holds no key", Assert.Throws<RhoException>(() => ApiKeys.Load(_file, null)).Message, StringComparison.Ordinal);
        Assert.StartsWith("RHO_API_KEYS: holds no key", Assert.Throws<RhoException>(() => ApiKeys.Load(null, " , ")).Message, StringComparison.Ordinal);
    }
}

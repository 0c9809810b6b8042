namespace Rho.Serving.Tests;

/// <summary>Clients that others wrote, against a real server.</summary>
public sealed class ClientTests
{
    private const string Python = "/usr/bin/python3";

    private static readonly Lazy<Task<string>> s_packages = new(InstallAsync);

    internal static string Clients => Path.Combine(AppContext.BaseDirectory, "clients");

    private static string Protos => Path.Combine(AppContext.BaseDirectory, "protos");

    [Fact, Trait("Category", "Slow")]
    public async Task OpenAiPackage_EveryRouteAndOption()
    {
        await NeedPackagesAsync();
        await using var server = await TestServer.StartAsync();
        Assert.EndsWith("ok", await RunAsync("node", ["openai_client.mjs", server.Addresses.Http!.ToString()]), StringComparison.Ordinal);
        await server.IdleAsync();
    }

    [Fact, Trait("Category", "Slow")]
    public async Task OpenAiAiSdkAndLangChain_RunToolLoops()
    {
        await NeedPackagesAsync();
        await using var server = await TestServer.StartAsync(TestServer.Options(new ModelSource("scripted", ScriptedModel.Tagged)));
        Assert.EndsWith("ok", await RunAsync("node", ["tools_client.mjs", server.Addresses.Http!.ToString()]), StringComparison.Ordinal);
    }

    [Fact, Trait("Category", "Slow")]
    public async Task OpenAiAndAiSdk_ParseWhatZodAsksFor()
    {
        await NeedPackagesAsync();
        await using var server = await TestServer.StartAsync(TestServer.Options(new ModelSource("tiny", TestModels.Folder(context: 4096))));
        Assert.EndsWith("ok", await RunAsync("node", ["schemas_client.mjs", server.Addresses.Http!.ToString()]), StringComparison.Ordinal);
    }

    [Fact, Trait("Category", "Slow")]
    public async Task OpenAiAndAiSdk_StreamsThatFail_Raise()
    {
        await NeedPackagesAsync();
        await using var server = await TestServer.StartAsync();
        server.Gate.Hold();
        var running = RunAsync("node", ["failing_stream.mjs", server.Addresses.Http!.ToString()]);
        await server.BreakAsync(5);
        Assert.All((await running).Split('\n'), line => Assert.EndsWith(": raised", line, StringComparison.Ordinal));
    }

    [Fact]
    public async Task PythonHttpClient_StreamThatFails_Raises()
    {
        await using var server = await TestServer.StartAsync();
        server.Gate.Hold();
        const string Program = """
            import http.client, json, sys
            connection = http.client.HTTPConnection(sys.argv[1])
            connection.request("POST", "/v1/completions", json.dumps({"prompt": "The", "max_tokens": 400, "temperature": 0, "stream": True}))
            try:
                connection.getresponse().read()
                print("ended as if whole")
            except http.client.IncompleteRead as error:
                print("raised", b'"error"' in error.partial)
            """;
        var running = RunAsync(Python, ["-c", Program, server.Addresses.Http!.Authority]);
        await server.BreakAsync(1);
        Assert.Equal("raised True", await running);
    }

    [Fact, Trait("Category", "Slow")]
    public async Task GrpcJs_GeneratesAndScores()
    {
        await NeedPackagesAsync();
        await using var server = await TestServer.StartAsync();
        Assert.EndsWith("ok", await RunAsync("node", ["grpc_client.mjs", server.Addresses.Grpc!.Authority, Protos]), StringComparison.Ordinal);
    }

    // Debian's Python, whose packages ./rho test installs: another one first in the path has none of them.
    [Fact]
    public async Task PythonGrpc_GeneratesAndScores()
    {
        Tool.Find("protoc");
        await using var server = await TestServer.StartAsync();
        Assert.EndsWith("ok", await RunAsync(Python, ["grpc_client.py", server.Addresses.Grpc!.Authority, Protos]), StringComparison.Ordinal);
        await server.IdleAsync();
    }

    [Fact]
    public async Task Curl_StreamsAsItShould()
    {
        await using var server = await TestServer.StartAsync();
        var answer = await RunAsync("curl", ["-sSN", $"{server.Addresses.Http}v1/completions", "-d", """{"prompt": "The", "max_tokens": 3, "stream": true, "ignore_eos": true}"""]);
        Assert.EndsWith("data: [DONE]", answer, StringComparison.Ordinal);
    }

    private static async Task<string> RunAsync(string program, IEnumerable<string> arguments)
    {
        var (exitCode, printed, errors) = await Tool.RunAsync(program, arguments, Clients);
        Assert.True(exitCode == 0, $"{program}: {errors}{printed}");
        return printed.TrimEnd();
    }

    /// <summary>Installs the npm packages once; the test is skipped, with the reason, where they are not to be had.</summary>
    internal static async Task NeedPackagesAsync()
    {
        Tool.Find("node");
        var reason = await s_packages.Value;
        Assert.SkipUnless(reason.Length == 0, reason);
    }

    private static async Task<string> InstallAsync()
    {
        string[] quick = ["--fetch-retries=0", "--fetch-timeout=60000", "--no-audit", "--no-fund", "--package-lock=false", "--loglevel=error"];
        var (exitCode, _, errors) = await Tool.RunAsync("npm", ["install", .. quick], Clients);
        return exitCode == 0 ? "" : $"npm cannot install the clients: {errors.Trim()}";
    }
}

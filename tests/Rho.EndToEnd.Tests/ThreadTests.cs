using Rho.Cli.Quickstart;

namespace Rho.EndToEnd.Tests;

/// <summary>libtorch keeps a number of threads for each thread that calls it: the ones that compute are counted, by name, in services told to use one.</summary>
[Collection(WorkshopCollection.Name)]
public sealed class ThreadTests(Workshop workshop) : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>OpenMP's threads have the name of the one that made them.</summary>
    private static int Threads(ChildProcess process, string name) =>
        Directory.GetDirectories($"/proc/{process.Id}/task").Count(task => File.ReadAllText(Path.Combine(task, "comm")).StartsWith(name, StringComparison.Ordinal));

    [Fact]
    public async Task Scorer_WithOneThread_ComputesWithOne()
    {
        var (scorer, address) = await Services.StartScorerAsync(workshop.Reference, "--cache", _folder["cache"]);
        await using var _ = scorer;
        await RhoProgram.SucceedAsync("score", "--corpus", workshop.HeldOutFolder, "--scorer", address, "--out", _folder["scores"]);
        Assert.Equal(1, Threads(scorer, "rho-scoring"));
    }

    [Fact]
    public async Task Server_WithOneThread_ComputesWithOne()
    {
        var server = RhoProgram.Start(
            line => line.StartsWith("listening on ", StringComparison.Ordinal) ? line.Split(' ').TakeWhile(word => word != "(HTTP)").Last() : null,
            "serve", "--model", $"tiny={workshop.Reference}", "--grpc", "0", "--http", "0", "--cache-mib", "16", "--threads", "1");
        await using var _ = server;
        var address = await server.ReadyAsync(RhoProgram.Patience, TestContext.Current.CancellationToken);
        using var http = new HttpClient();
        using var body = new StringContent("""{ "model": "tiny", "prompt": "1 + 1 =", "max_tokens": 8 }""", System.Text.Encoding.UTF8, "application/json");
        using var response = await http.PostAsync(new Uri(new Uri(address), "/v1/completions"), body, TestContext.Current.CancellationToken);
        response.EnsureSuccessStatusCode();
        Assert.Equal(1, Threads(server, "rho-engine"));
        Assert.Equal(0, Threads(server, "rho-kernel"));
    }
}

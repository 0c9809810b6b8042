using System.Net;
using System.Net.Sockets;
using System.Text.Json.Nodes;

namespace Rho.EndToEnd.Tests;

/// <summary>What users get wrong: one clear line on stderr, exit code 1, and nothing left behind that looks whole.</summary>
[Collection(WorkshopCollection.Name)]
public sealed class BadInputTests(Workshop workshop) : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Scorer_MissingCheckpoint_NamesTheFolder() =>
        Assert.Contains("/nowhere", await RhoProgram.FailAsync("scorer", "--reference", "/nowhere", "--port", "0"), StringComparison.Ordinal);

    [Fact]
    public async Task Scorer_TruncatedCheckpoint_NamesTheFile()
    {
        var weights = Path.Combine(CopyOfReference(), "model.safetensors");
        using (var file = File.OpenWrite(weights)) file.SetLength(file.Length - 1000);
        Assert.Contains(weights, await FailAtStartAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Scorer_TensorOfWrongShape_NamesTensorAndShapes()
    {
        EditConfig(config => config["intermediate_size"] = 360);
        var message = await FailAtStartAsync();
        Assert.Contains("mlp.", message, StringComparison.Ordinal);
        Assert.Contains("352", message, StringComparison.Ordinal);
        Assert.Contains("360", message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Scorer_UnknownArchitecture_NamesIt()
    {
        EditConfig(config => config["model_type"] = "mamba");
        Assert.Contains("mamba", await FailAtStartAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Scorer_PortInUse_NamesThePort()
    {
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();
        var port = ((IPEndPoint)taken.LocalEndpoint).Port;
        Assert.Contains($"{port}", await RhoProgram.FailAsync("scorer", "--reference", workshop.Reference, "--cache", _folder["cache"], "--port", $"{port}"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Scorer_RedisRefuses_NamesTheAddress() =>
        Assert.Contains("127.0.0.1:1", await RhoProgram.FailAsync("scorer", "--reference", workshop.Reference, "--redis", "127.0.0.1:1", "--port", "0"), StringComparison.Ordinal);

    [Fact]
    public async Task Score_ScorerUnreachable_NamesTheAddressAndLeavesNoFile()
    {
        Assert.Contains("127.0.0.1:1", await RhoProgram.FailAsync("score", "--corpus", workshop.CorpusFolder, "--scorer", "127.0.0.1:1", "--out", _folder["scores"]), StringComparison.Ordinal);
        Assert.False(Directory.Exists(_folder["scores"]) && Directory.EnumerateFiles(_folder["scores"]).Any());
    }

    [Fact]
    public async Task Score_TokenizerDoesNotFit_SaysWhoseIsWhose()
    {
        await RhoProgram.SucceedAsync("tokenizer", "train", "--vocab", "400", "--out", _folder["other"], workshop.Text);
        await RhoProgram.SucceedAsync("corpus", "build", "--tokenizer", _folder["other"], "--length", $"{Workshop.Length}", "--out", _folder["corpus"], workshop.Text);
        var (scorer, address) = await Services.StartScorerAsync(workshop.Reference, "--cache", _folder["cache"]);
        await using (scorer)
        {
            var message = await RhoProgram.FailAsync("score", "--corpus", _folder["corpus"], "--scorer", address, "--out", _folder["scores"]);
            Assert.Contains("tokenizer", message, StringComparison.Ordinal);
            Assert.True(message.Split("sha256:").Length > 2, message);
        }
    }

    [Theory]
    [InlineData("", "empty")]
    [InlineData("{\"text\": \"a\"}\n{\"text\": \"broken", "bad.jsonl:2:")]
    public async Task CorpusBuild_BadFile_NamesFileAndLineAndLeavesNoCorpus(string content, string expected)
    {
        await File.WriteAllTextAsync(_folder["bad.jsonl"], content);
        await FailToBuildAsync(expected, _folder["bad.jsonl"], "--max-bad", "0");
    }

    [Fact]
    public async Task CorpusBuild_NotUtf8_NamesFile()
    {
        await File.WriteAllBytesAsync(_folder["latin1.txt"], [.. "caf"u8, 0xE9, .. " au lait"u8]);
        await FailToBuildAsync("UTF-8", _folder["latin1.txt"]);
    }

    [Fact]
    public async Task CorpusBuild_TokenizerMissing_NamesTheFolder()
    {
        Assert.Contains("/nowhere", await RhoProgram.FailAsync("corpus", "build", "--tokenizer", "/nowhere", "--length", "64", "--out", _folder["corpus"], workshop.Text), StringComparison.Ordinal);
    }

    [Fact]
    public async Task TokenizerTrain_MissingFile_NamesItAndLeavesNoTokenizer()
    {
        Assert.Contains("nowhere.txt", await RhoProgram.FailAsync("tokenizer", "train", "--vocab", "300", "--out", _folder["tokenizer"], "/nowhere.txt"), StringComparison.Ordinal);
        Assert.False(Directory.Exists(_folder["tokenizer"]));
    }

    [Fact]
    public async Task CorpusInspect_DamagedShard_NamesIt()
    {
        Copy(workshop.CorpusFolder, _folder["corpus"]);
        var shard = Directory.EnumerateFiles(_folder["corpus"], "shard-*").Order(StringComparer.Ordinal).First();
        using (var file = new FileStream(shard, FileMode.Open))
        {
            file.Seek(-8, SeekOrigin.End);
            file.Write([1, 2, 3, 4]);
        }

        Assert.Contains(Path.GetFileName(shard), await RhoProgram.FailAsync("corpus", "inspect", _folder["corpus"]), StringComparison.Ordinal);
    }

    private async Task FailToBuildAsync(string expected, string file, params string[] more)
    {
        var message = await RhoProgram.FailAsync(["corpus", "build", "--tokenizer", workshop.TokenizerFolder, "--length", "64", "--out", _folder["corpus"], file, .. more]);
        Assert.Contains(file, message, StringComparison.Ordinal);
        Assert.Contains(expected, message, StringComparison.Ordinal);
        Assert.False(File.Exists(Path.Combine(_folder["corpus"], "corpus.json")));
    }

    private Task<string> FailAtStartAsync() => RhoProgram.FailAsync("scorer", "--reference", _folder["reference"], "--cache", _folder["cache"], "--port", "0");

    private string CopyOfReference()
    {
        Copy(workshop.Reference, _folder["reference"]);
        return _folder["reference"];
    }

    private void EditConfig(Action<JsonNode> edit)
    {
        var path = Path.Combine(CopyOfReference(), "config.json");
        var config = JsonNode.Parse(File.ReadAllText(path))!;
        edit(config);
        File.WriteAllText(path, config.ToJsonString());
    }

    private static void Copy(string from, string to)
    {
        Directory.CreateDirectory(to);
        foreach (var file in Directory.EnumerateFiles(from)) File.Copy(file, Path.Combine(to, Path.GetFileName(file)));
    }
}

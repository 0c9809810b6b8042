using System.IO.Compression;
using System.Text.Json.Nodes;

namespace Rho.EndToEnd.Tests;

/// <summary>rho tokenize and rho corpus as a user calls them.</summary>
[Collection(WorkshopCollection.Name)]
public sealed class CorpusCommandTests(Workshop workshop) : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Tokenize_ThereAndBack_GivesTheFile()
    {
        const string Text = "Question: what is 2 + 2?\n\n  zwei  größer 👍\n";
        await File.WriteAllTextAsync(_folder["a.txt"], Text);
        await File.WriteAllTextAsync(_folder["ids.txt"], await RhoProgram.SucceedAsync("tokenize", "--tokenizer", workshop.TokenizerFolder, _folder["a.txt"]));
        Assert.Equal(Text, await RhoProgram.SucceedAsync("tokenize", "--tokenizer", workshop.TokenizerFolder, "--decode", _folder["ids.txt"]));
        Assert.StartsWith("3 texts, ", await RhoProgram.SucceedAsync("tokenize", "--tokenizer", workshop.TokenizerFolder, "--count", _folder["a.txt"]), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Tokenize_WhatIsWrong_IsSaidInOneLine()
    {
        Assert.Contains("/nowhere.txt: no such file", await RhoProgram.FailAsync("tokenize", "--tokenizer", workshop.TokenizerFolder, "/nowhere.txt"), StringComparison.Ordinal);
        Assert.Contains("/nowhere", await RhoProgram.FailAsync("tokenize", "--tokenizer", "/nowhere"), StringComparison.Ordinal);
        await File.WriteAllBytesAsync(_folder["a.txt"], [.. "good\nb"u8, 0xFF]);
        Assert.Contains($"{_folder["a.txt"]}:2: not valid UTF-8", await RhoProgram.FailAsync("tokenize", "--tokenizer", workshop.TokenizerFolder, _folder["a.txt"]), StringComparison.Ordinal);
        var typo = await RhoProgram.RunAsync("tokenize", "--tokenizer", workshop.TokenizerFolder, "--cuont");
        Assert.Equal(2, typo.ExitCode);
        Assert.Contains("did you mean '--count'?", Assert.Single(typo.ErrorLines), StringComparison.Ordinal);
    }

    [Fact]
    public async Task CorpusBuild_Mixture_KeepsWeightsAndReportsThem()
    {
        await WriteAsync("web.jsonl", 60, i => new JsonObject { ["text"] = $"web page {i} with words" });
        await WriteAsync("code.jsonl", 40, i => new JsonObject { ["text"] = $"def f{i}(): return {i}" });
        await File.WriteAllTextAsync(_folder["qa.csv"], "question,answer\n" + string.Concat(Enumerable.Range(0, 30).Select(i => $"\"What, is {i}?\",{i}\n")));
        await using (var gzip = new GZipStream(File.Create(_folder["qa.csv.gz"]), CompressionLevel.Fastest)) await gzip.WriteAsync(await File.ReadAllBytesAsync(_folder["qa.csv"]));
        File.Delete(_folder["qa.csv"]);
        await File.WriteAllTextAsync(
            _folder["mixture.json"],
            """[{"paths": ["web.jsonl"], "weight": 6, "epochs": 9}, {"paths": ["*.csv.gz"], "weight": 3, "epochs": 9, "template": "{question}\n{answer}"}, {"paths": ["code.jsonl"], "weight": 1}]""");
        await RhoProgram.SucceedAsync(
            "corpus", "build", "--tokenizer", workshop.TokenizerFolder, "--length", "32", "--mixture", _folder["mixture.json"], "--shuffle", "1", "--held-out", "0.1", "--threads", "2", "--out", _folder["corpus"]);
        var report = JsonNode.Parse(await File.ReadAllTextAsync(_folder["corpus/corpus.json"]))!["report"]!;
        var used = report["sources"]!.AsArray().Select(source => (double)source!["tokens_used"]!).ToArray();
        Assert.InRange(used[0] / used.Sum(), 0.55, 0.65);
        Assert.InRange(used[2] / used.Sum(), 0.07, 0.13);
        Assert.True(File.Exists(_folder["corpus/heldout/corpus.json"]));
        var shown = await RhoProgram.SucceedAsync("corpus", "inspect", _folder["corpus"], "--tokenizer", workshop.TokenizerFolder);
        Assert.Contains("-- sequence 0, document", shown, StringComparison.Ordinal);
        Assert.Contains("shard-00000.safetensors", shown, StringComparison.Ordinal);
    }

    [Fact]
    public async Task CorpusBuild_BadLines_AreNamedAndSkippedUpToTheLimit()
    {
        await File.WriteAllTextAsync(_folder["a.jsonl"], "{\"text\": \"one\"}\n{\"text\": broken\n{\"text\": 5}\n{\"text\": \"two\"}\n");
        string[] build = ["corpus", "build", "--tokenizer", workshop.TokenizerFolder, "--length", "32", _folder["a.jsonl"]];
        var done = await RhoProgram.RunAsync([.. build, "--out", _folder["corpus"]]);
        Assert.Equal(0, done.ExitCode);
        Assert.Contains($"skipped {_folder["a.jsonl"]} line 2: ", done.Error, StringComparison.Ordinal);
        Assert.Contains($"skipped {_folder["a.jsonl"]} line 3: ", done.Error, StringComparison.Ordinal);
        Assert.Contains("a.jsonl:3:", await RhoProgram.FailAsync([.. build, "--max-bad", "1", "--out", _folder["other"]]), StringComparison.Ordinal);
        Assert.False(File.Exists(_folder["other/corpus.json"]));
    }

    private Task WriteAsync(string name, int count, Func<int, JsonObject> record) =>
        File.WriteAllLinesAsync(_folder[name], Enumerable.Range(0, count).Select(i => record(i).ToJsonString()));
}

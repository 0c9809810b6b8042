using System.Text.Json;

namespace Rho.Tokenization.Tests;

public sealed class BpeTrainerTests
{
    [Theory]
    [InlineData(BpePattern.Gpt2)]
    [InlineData(BpePattern.Llama3)]
    [InlineData(BpePattern.Qwen2)]
    public void Train_AnyPattern_DecodesWhatItEncodes(BpePattern pattern)
    {
        var tokenizer = Texts.Train(pattern: pattern);
        foreach (var text in Texts.Sentences) Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
    }

    [Fact]
    public void Train_KnownCounts_MergesTheMostFrequentPairFirst()
    {
        var tokenizer = BpeTrainer.Train(
            ["aab aab aab ab"], new BpeTrainerOptions { VocabularySize = 259, BosToken = null, EosToken = null, MinimumFrequency = 1 });

        // "aab", " aab" twice and " ab" have (a,b) 4 times; then (a,ab) 3 times; then (Ġ,aab) twice.
        Assert.Equal("ab", tokenizer.IdToToken(256));
        Assert.Equal("aab", tokenizer.IdToToken(257));
        Assert.Equal("\u0120aab", tokenizer.IdToToken(258));
    }

    [Fact]
    public void Train_OtherThreadCount_GivesTheSameTokenizer()
    {
        var texts = Enumerable.Range(0, 200).Select(i => $"text {i} {Texts.Sentences[i % Texts.Sentences.Length]}").ToArray();
        var one = BpeTrainer.Train(texts, new BpeTrainerOptions { VocabularySize = 500, Threads = 1 });
        var three = BpeTrainer.Train(texts.Reverse(), new BpeTrainerOptions { VocabularySize = 500, Threads = 3 });
        Assert.Equal(one.Fingerprint, three.Fingerprint);
    }

    [Theory]
    [InlineData("gpt2", BpePattern.Gpt2)]
    [InlineData("llama3", BpePattern.Llama3)]
    [InlineData("qwen2", BpePattern.Qwen2)]
    public void Train_Corpus_MergesWhatHuggingFaceMerges(string name, BpePattern pattern)
    {
        // Hugging Face reads a file line by line, line breaks included.
        var lines = File.ReadAllText(Path.Combine(Recorded.Folder, "corpus.txt")).Split('\n').Select(line => line + "\n").ToList();
        lines.RemoveAt(lines.Count - 1);
        var options = new BpeTrainerOptions { VocabularySize = 30_000, Pattern = pattern, MinimumFrequency = 1, BosToken = null, EosToken = null };
        var tokenizer = BpeTrainer.Train(lines, options);
        var expected = Recorded.ReadCompressed("trained.json.gz").GetProperty(name).EnumerateArray().Select(merge => merge[0].GetString() + " " + merge[1].GetString()).ToArray();
        Assert.Equal(expected, Merges(tokenizer));
    }

    private static string[] Merges(Tokenizer tokenizer)
    {
        var folder = Directory.CreateTempSubdirectory("rho-tokenizer-").FullName;
        try
        {
            tokenizer.Save(folder);
            using var document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "tokenizer.json")));
            return [.. document.RootElement.GetProperty("model").GetProperty("merges").EnumerateArray().Select(merge => merge[0].GetString() + " " + merge[1].GetString())];
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public void Train_VocabularyTooSmall_SaysHowManyAreNeeded()
    {
        var error = Assert.Throws<RhoException>(() => BpeTrainer.Train([], new BpeTrainerOptions { VocabularySize = 100 }));
        Assert.Contains("at least 258", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Train_Cancelled_Stops()
    {
        using var cancelled = new CancellationTokenSource();
        cancelled.Cancel();
        Assert.ThrowsAny<OperationCanceledException>(() =>
            BpeTrainer.Train(Texts.Sentences, new BpeTrainerOptions { VocabularySize = 400 }, cancellation: cancelled.Token));
    }

    [Fact]
    public void Train_SourceThrows_PassesTheErrorOn()
    {
        static IEnumerable<string> Failing()
        {
            yield return "text";
            throw new InvalidDataException("broken source");
        }

        Assert.Throws<InvalidDataException>(() => BpeTrainer.Train(Failing(), new BpeTrainerOptions { VocabularySize = 400 }));
    }
}

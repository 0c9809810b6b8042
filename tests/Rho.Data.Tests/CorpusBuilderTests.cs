using System.IO.Compression;
using System.Text;
using System.Text.Json;
using Rho.Formats;
using Rho.TestSupport;
using Rho.Tokenization;

namespace Rho.Data.Tests;

public sealed class CorpusBuilderTests : IDisposable
{
    internal static readonly Tokenizer Tokenizer = BpeTrainer.Train([string.Join(' ', Words(5, 3000))], new BpeTrainerOptions { VocabularySize = 400 });

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("a.jsonl", "{\"text\":\"one\"}\n\n{\"x\":[{\"text\":3}],\"text\":\"two \\u00e4\\n\"}\r\n{\"text\":\"three\"}")]
    [InlineData("a.json", "[{\"text\":\"one\"}, {\"text\":\"two ä\\n\",\"y\":\"]},{\"}\n,{\"text\":\"three\"}]\n")]
    [InlineData("b.json", "{\"text\":\"one\"}{\"text\":\"two ä\\n\"}\n{\"text\":\"three\"}")]
    [InlineData("a.csv", "id,text\n1,one\n2,\"two ä\n\"\n\n3,three\n")]
    [InlineData("a.tsv", "text\tn\r\none\t1\r\n\"two ä\n\"\t2\r\nthree\t\"3\"\r\n")]
    [InlineData("bom.jsonl", "\uFEFF{\"text\":\"one\"}\n{\"text\":\"two ä\\n\"}\n{\"text\":\"three\"}")]
    public async Task Build_EachFormatPlainAndCompressed_FindsTheSameDocuments(string name, string content)
    {
        var bytes = Encoding.UTF8.GetBytes(content);
        var compressed = new MemoryStream();
        using (var gzip = new GZipStream(compressed, CompressionLevel.Fastest, leaveOpen: true)) gzip.Write(bytes);
        foreach (var path in (string[])[_folder.Write(name, bytes), _folder.Write(name + ".gz", compressed.ToArray())])
        {
            var corpus = await BuildAsync(Source(path));
            Assert.Equal(["one", "two ä\n", "three"], Documents(corpus));
        }
    }

    [Fact]
    public async Task Build_TextFiles_OneDocumentEach_OrSplitAtSeparator()
    {
        var path = _folder.Write("a.txt", "one\n\nstill one\n###\ntwo\n###\n \n###\nthree");
        Assert.Equal(["one\n\nstill one\n###\ntwo\n###\n \n###\nthree"], Documents(await BuildAsync(Source(path))));
        var corpus = await BuildAsync(Source(path) with { Separator = "\n###\n" });
        Assert.Equal(["one\n\nstill one", "two", "three"], Documents(corpus));
        Assert.Equal(1, corpus.Description.Report!.Dropped.Empty);
    }

    [Fact]
    public async Task Build_Template_JoinsFieldsOfJsonAndTables()
    {
        var json = _folder.Write("a.jsonl", "{\"question\":\"2+2?\",\"answer\":4,\"sure\":true}\n{\"answer\":\"x\",\"question\":\"\\\"y\\\"\",\"sure\":false}");
        var table = _folder.Write("a.csv", "answer,question,sure\n4,2+2?,true\nx,\"\"\"y\"\"\",false\n");
        var source = new CorpusSource { Paths = [json, table], Template = "{question}\\n{{{answer}}} {sure}" };
        var documents = Documents(await BuildAsync(source, options => options with { RemoveDuplicates = false }));
        Assert.Equal(["2+2?\n{4} true", "\"y\"\n{x} false", "2+2?\n{4} true", "\"y\"\n{x} false"], documents);
    }

    [Fact]
    public async Task Build_Conversations_GoThroughTheChatTemplate()
    {
        var directory = _folder["chat-tokenizer"];
        BpeTrainer.Train([string.Join(' ', Words(5, 300))], new BpeTrainerOptions { VocabularySize = 400, SpecialTokens = ["<|im_start|>", "<|im_end|>"], EosToken = "<|im_end|>" }).Save(directory);
        var path = Path.Combine(directory, "tokenizer_config.json");
        var config = System.Text.Json.Nodes.JsonNode.Parse(File.ReadAllText(path))!;
        config["chat_template"] = "{% if tools %}tools: {{ tools | length }}\n{% endif %}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}wrong{% endif %}";
        File.WriteAllText(path, config.ToJsonString());
        var tokenizer = Tokenizer.Load(directory);
        var file = _folder.Write("a.jsonl", """
            {"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"Ä \"x\""}]}
            {"messages":[{"content":"hi"}]}
            {"messages":"hi"}
            {"conversations":[]}
            {"tools":[{},{}],"messages":[{"role":"system","content":"s"}]}
            """);
        var source = Source(file) with { Messages = "messages" };
        var corpus = await CorpusBuilder.BuildAsync(Options(source), tokenizer, progress: null, Timeout());
        using var shard = corpus.OpenShard(0);
        var tokens = new int[shard.Length * shard.Sequences];
        shard.Read(0, tokens);
        Assert.Equal(
            ["<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nÄ \"x\"<|im_end|>", "tools: 2\n<|im_start|>system\ns<|im_end|>"],
            shard.Pieces(0, (int)shard.Sequences).GroupBy(piece => piece.Document).Select(pieces => tokenizer.Decode(pieces.SelectMany(p => tokens.AsSpan((int)p.Sequence * shard.Length + p.Start, p.Length).ToArray()).ToArray())));
        Assert.Equal([2L, 3, 4], corpus.Description.Report!.BadRecords.Select(bad => bad.Line));
        Assert.Contains("each message is to be an object with a role", corpus.Description.Report.BadRecords[0].Reason, StringComparison.Ordinal);

        await FailsAsync(source, "no chat template");
    }

    [Theory]
    [InlineData("{question", "a { has no }")]
    [InlineData("question}", "a } has no {")]
    [InlineData("{}", "names no field")]
    [InlineData("question", "names no field")]
    public async Task Build_BrokenTemplate_SaysWhat(string template, string expected)
    {
        var source = Source(_folder.Write("a.jsonl", "{}")) with { Template = template };
        Assert.Contains(expected, (await Assert.ThrowsAsync<RhoException>(() => BuildAsync(source))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Build_FoldersAndGlobs_ReadsInOrderOfPaths()
    {
        _folder.Write("in/b.txt", "b");
        _folder.Write("in/a.txt", "a");
        _folder.Write("in/deep/er/c.jsonl", "{\"text\":\"c\"}");
        _folder.Write("in/.hidden/d.txt", "d");
        _folder.Write("in/readme.md", "e");
        _folder.Write("in/empty.txt", "");
        Assert.Equal(["a", "b", "c"], Documents(await BuildAsync(Source(_folder["in"]))));
        Assert.Equal(["c", "a", "b"], Documents(await BuildAsync(new CorpusSource { Paths = [_folder["in/deep/**/c.jsonl"], _folder["in/?.txt"]] })));
        Assert.Equal(["a", "b"], Documents(await BuildAsync(Source(_folder["in/*.txt"]))));
        Assert.Equal(["a", "b", "c"], Documents(await BuildAsync(Source(_folder["in/**"]))));
        await FailsAsync(Source(_folder["in/*.csv"]), "no file in it can be read");
        await FailsAsync(Source(_folder["in/readme.md"]), "does not say what it holds");
        await FailsAsync(Source(_folder["no.txt"]), "no such file");
        await FailsAsync(Source(_folder["in/empty.txt"]), "the file is empty");
    }

    [Fact]
    public async Task Build_FolderWithLinks_ReadsLinkedFilesAndNoCircles()
    {
        _folder.Write("blobs/1234", "linked text");
        Directory.CreateDirectory(_folder["in"]);
        File.CreateSymbolicLink(_folder["in/a.txt"], _folder["blobs/1234"]);
        Directory.CreateSymbolicLink(_folder["in/circle"], _folder["in"]);
        var reports = new List<CorpusProgress>();
        var corpus = await CorpusBuilder.BuildAsync(Options(Source(_folder["in"])), Tokenizer, new Immediate(reports.Add), Timeout());
        Assert.Equal(["linked text"], Documents(corpus));
        Assert.Equal("linked text".Length, reports[0].Total);
    }

    [Fact]
    public async Task Build_AcrossSequences_LeavesNoGapAndEndsEachDocument()
    {
        var words = Words(1, 200).Chunk(7).Select(w => string.Join(' ', w)).ToArray();
        var corpus = await BuildAsync(Source(Lines(words)), options => options with { SequenceLength = 16, ShardTokens = 100, RemoveDuplicates = false });
        Assert.Equal(words, Documents(corpus));
        Assert.True(corpus.Shards.Count > 2);
        Assert.All(corpus.Shards.SkipLast(1), shard => Assert.Equal(6, shard.Sequences));
        var stream = Tokens(corpus);
        var expected = words.SelectMany(w => (int[])[.. Tokenizer.Encode(w, addSpecialTokens: true), Tokenizer.EosId!.Value]).ToArray();
        Assert.Equal(expected, stream[..expected.Length]);
        Assert.All(stream[expected.Length..], token => Assert.Equal(0, token));
        Assert.Equal(expected.Length, corpus.Tokens);
        Assert.True(stream.Length - expected.Length < 16);
        Assert.Equal(stream.Length - expected.Length, corpus.Description.Report!.PaddingTokens);
        Assert.Equal(words.Length, corpus.Description.Documents);
    }

    [Fact]
    public async Task Build_InsideSequences_NoDocumentCrossesUnlessLongerThanOne()
    {
        var random = new Random(4);
        var words = Enumerable.Range(0, 300).Select(i => string.Join(' ', Words(i, random.Next(1, 14)))).ToArray();
        var corpus = await BuildAsync(Source(Lines(words)), options => options with { SequenceLength = 32, ShardTokens = 320, DocumentsCrossSequences = false, RemoveDuplicates = false });
        Assert.Equal(words.Order(StringComparer.Ordinal), Documents(corpus).Order(StringComparer.Ordinal));
        for (var i = 0; i < corpus.Shards.Count; i++)
        {
            using var shard = corpus.OpenShard(i);
            foreach (var byDocument in shard.Pieces(0, (int)shard.Sequences).GroupBy(piece => piece.Document))
                Assert.True(byDocument.Count() == 1 || byDocument.SkipLast(1).All(piece => piece.Length == 32), "a document that fits was cut");
        }

        var padding = corpus.Sequences * 32 - corpus.Tokens;
        Assert.True(padding < corpus.Tokens / 20, $"{padding} of {corpus.Tokens}");
    }

    [Fact]
    public async Task Build_Duplicates_AreDroppedAndCounted()
    {
        var path = Lines(["a b", "c", "a b", "a b ", "c"]);
        var corpus = await BuildAsync(Source(path));
        Assert.Equal(["a b", "c", "a b "], Documents(corpus));
        Assert.Equal(2, corpus.Description.Report!.Dropped.Duplicates);
        Assert.Equal(5, Documents(await BuildAsync(Source(path), options => options with { RemoveDuplicates = false })).Count);
    }

    [Fact]
    public async Task Build_Shuffled_IsAPermutationFixedBySeed()
    {
        var words = Words(2, 500).Distinct().ToArray();
        var source = Source(Lines(words));
        var first = Documents(await BuildAsync(source, options => options with { ShuffleSeed = 1 }));
        Assert.NotEqual(words, first);
        Assert.Equal(words.Order(StringComparer.Ordinal), first.Order(StringComparer.Ordinal));
        Assert.Equal(first, Documents(await BuildAsync(source, options => options with { ShuffleSeed = 1 })));
        Assert.NotEqual(first, Documents(await BuildAsync(source, options => options with { ShuffleSeed = 2 })));
        // Far from where they were: the mean distance of a random permutation is a third.
        var distance = first.Select((word, i) => Math.Abs(Array.IndexOf(words, word) - i)).Average() / words.Length;
        Assert.InRange(distance, 0.28, 0.38);
    }

    [Fact]
    public async Task Build_ShuffledEpochs_ReadEachDocumentOncePerEpochInAnotherOrder()
    {
        var words = Words(2, 100).Distinct().ToArray();
        var corpus = await BuildAsync(Source(Lines(words)) with { Epochs = 3 }, options => options with { ShuffleSeed = 7 });
        var epochs = Documents(corpus).Chunk(words.Length).ToArray();
        Assert.Equal(3, epochs.Length);
        Assert.All(epochs, epoch => Assert.Equal(words.Order(StringComparer.Ordinal), epoch.Order(StringComparer.Ordinal)));
        Assert.NotEqual(epochs[0], epochs[1]);
        Assert.Equal(3, corpus.Description.Report!.Sources[0].EpochsUsed);
        Assert.Equal(words.Length, corpus.Description.Report.Documents);
        Assert.Equal(3 * words.Length, corpus.Description.Documents);
    }

    [Theory]
    [InlineData(null)]
    [InlineData(3L)]
    public async Task Build_WeightedMixture_KeepsSharesAtEveryPoint(long? seed)
    {
        string[] names = ["web", "code", "math"];
        double[] weights = [6, 3, 1];
        var sources = names.Select((name, i) => new CorpusSource
        {
            Paths = [Lines(Enumerable.Range(0, 2000).Select(n => $"{name} {n}"), name)],
            Name = name,
            Weight = weights[i],
        }).ToArray();
        var corpus = await BuildAsync(sources, options => options with { ShuffleSeed = seed });
        var documents = Documents(corpus);
        foreach (var end in (int[])[100, 1000, documents.Count])
        {
            var tokens = names.Select(name => (double)documents.Take(end).Where(d => d.StartsWith(name, StringComparison.Ordinal)).Sum(Length)).ToArray();
            for (var i = 0; i < 3; i++) Assert.Equal(weights[i] / 10, tokens[i] / tokens.Sum(), 0.02);
        }

        var report = corpus.Description.Report!.Sources;
        Assert.Equal(1, report[0].EpochsUsed, 0.01);
        Assert.InRange(report[2].EpochsUsed, 0.1, 0.3);
        Assert.Equal(corpus.Tokens, report.Sum(source => source.TokensUsed));
    }

    [Fact]
    public async Task Build_HeldOut_SplitsByContentTheSameWayInEveryBuild()
    {
        var words = Words(3, 2000).Distinct().ToArray();
        var corpus = await BuildAsync(Source(Lines(words)), options => options with { HeldOutShare = 0.1 });
        var heldOut = Corpus.Open(Path.Combine(corpus.Directory, CorpusBuilder.HeldOutFolder));
        var (train, test) = (Documents(corpus), Documents(heldOut));
        Assert.Equal(words.Order(StringComparer.Ordinal), train.Concat(test).Order(StringComparer.Ordinal));
        Assert.InRange(test.Count, words.Length * 0.07, words.Length * 0.13);
        Assert.Equal(new HeldOutDocuments(test.Count, heldOut.Tokens), corpus.Description.Report!.HeldOut);

        Array.Reverse(words);
        var again = await BuildAsync(Source(Lines(words)), options => options with { HeldOutShare = 0.1, ShuffleSeed = 5 });
        Assert.Equal(test.Order(StringComparer.Ordinal), Documents(Corpus.Open(Path.Combine(again.Directory, "heldout"))).Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task Build_BadRecords_AreCountedReportedAndSkippedUpToTheLimit()
    {
        var bytes = new List<byte>();
        void Line(string text, params byte[] rest) => bytes.AddRange([.. Encoding.UTF8.GetBytes(text), .. rest, (byte)'\n']);
        Line("{\"text\":\"good\"}");
        Line("{\"text\":\"cut");
        Line("{\"text\":7}");
        Line("{\"title\":\"x\",\"n\":1}");
        Line("[1]");
        Line("{\"text\":\"bad ", 0xC3, (byte)'"', (byte)'}');
        Line("{\"text\":\"half \\ud800\"}");
        Line("{\"text\":\"fine\"} x");
        Line("{\"text\":\"last\"}");
        var path = _folder.Write("a.jsonl", bytes.ToArray());
        var corpus = await BuildAsync(Source(path), options => options with { MaxBadRecords = 7 });
        Assert.Equal(["good", "last"], Documents(corpus));
        var report = corpus.Description.Report!;
        Assert.Equal(7, report.Dropped.BadRecords);
        Assert.Equal([2L, 3, 4, 5, 6, 7, 8], report.BadRecords.Select(bad => bad.Line));
        Assert.All(report.BadRecords, bad => Assert.Equal(path, bad.File));
        string[] reasons = ["broken JSON at position 13", "field \"text\" is a number, not a string", "no field \"text\"; it has \"title\", \"n\"", "a JSON object is needed, not an array",
            "invalid UTF-8: byte 0xC3 at position 14", "half of a surrogate pair", "broken JSON"];
        for (var i = 0; i < reasons.Length; i++) Assert.Contains(reasons[i], report.BadRecords[i].Reason, StringComparison.Ordinal);

        await FailsAsync(Source(path), $"{path}:8: broken JSON", options => options with { MaxBadRecords = 6 });
        await FailsAsync(Source(path), $"{path}:2: broken JSON", options => options with { MaxBadRecords = 0 });
    }

    [Theory]
    [InlineData("a.csv", "text,n\na,1\nb\nc,3\n\"d,4\ne,5\n", "a,c,e", "the row has 1 fields, the header 2|the quoted field that begins here does not end")]
    [InlineData("a.json", "[{\"text\":\"a\"},{\"text\":},{\"text\":\"c\"}", "a,c", "broken JSON|the file ends inside its array")]
    [InlineData("b.json", "{\"text\":\"a\"}\n{\"text\":\"b\n{\"text\":\"c\"}", "a,c", "does not end")]
    [InlineData("c.json", "{\"text\":\"a\"} ] , 5 {\"text\":\"c\"}", "a,c", "broken JSON|broken JSON|not a number")]
    public async Task Build_BrokenTablesAndArrays_GoOnBehindTheFault(string name, string content, string documents, string reasons)
    {
        var corpus = await BuildAsync(Source(_folder.Write(name, content)));
        Assert.Equal(documents.Split(','), Documents(corpus));
        var bad = corpus.Description.Report!.BadRecords;
        Assert.Equal(reasons.Split('|').Length, bad.Count);
        foreach (var (reason, record) in reasons.Split('|').Zip(bad)) Assert.Contains(reason, record.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Build_FilesThatHoldNothingReadable_FailNamingFile()
    {
        await FailsAsync(Source(_folder.Write("blank.jsonl", "\n \n")), "there is no text in the file");
        await FailsAsync(Source(_folder.Write("blank.txt", "\n \n")), "there is no text in the file");
        await FailsAsync(Source(_folder.Write("binary.txt", [65, 10, 66, 0xFF, 67])), "none of its records can be read; line 1: invalid UTF-8: byte 0xFF at position 2 of line 2");
        await FailsAsync(Source(_folder.Write("utf16.txt", [.. Encoding.Unicode.GetPreamble(), .. Encoding.Unicode.GetBytes("hello")])), "UTF-16");
        await FailsAsync(Source(_folder.Write("a.csv", "a,b\n1,2\n")), "has no column \"text\"; its header names a, b");
        Assert.DoesNotContain(Directory.EnumerateDirectories(_folder.Path), folder => Path.GetFileName(folder).StartsWith("out", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(0.5)]
    [InlineData(0.98)]
    public async Task Build_TruncatedOrDamagedGzip_Fails(double share)
    {
        var stream = new MemoryStream();
        using (var gzip = new GZipStream(stream, CompressionLevel.Fastest, leaveOpen: true)) gzip.Write(Encoding.UTF8.GetBytes(string.Join('\n', Words(1, 5000))));
        var whole = stream.ToArray();
        await FailsAsync(Source(_folder.Write("a.txt.gz", whole[..(int)(whole.Length * share)])), "end early");
        await FailsAsync(Source(_folder.Write("b.txt.gz", whole[..^3])), "end early");
        whole[whole.Length / 2] ^= 0x55;
        await FailsAsync(Source(_folder.Write("c.txt.gz", whole)), "damaged");
    }

    [Fact]
    public async Task Build_GzipOfSeveralMembers_ReadsAll()
    {
        var stream = new MemoryStream();
        foreach (var part in (string[])["{\"text\":\"a\"}\n{\"te", "xt\":\"b\"}\n"])
            using (var gzip = new GZipStream(stream, CompressionLevel.Fastest, leaveOpen: true)) gzip.Write(Encoding.UTF8.GetBytes(part));
        Assert.Equal(["a", "b"], Documents(await BuildAsync(Source(_folder.Write("a.jsonl.gz", stream.ToArray())))));
    }

    [Fact]
    public async Task Build_TextBeyondTheLimit_IsCutAtLineEnds()
    {
        var line = string.Join(' ', Words(1, 20));
        var text = new StringBuilder();
        while (text.Length < 9 << 20) text.Append(line).Append(text.Length).Append('\n');
        var corpus = await BuildAsync(Source(_folder.Write("a.txt", text.ToString())), options => options with { SequenceLength = 1024 });
        var documents = Documents(corpus);
        Assert.Equal(3, documents.Count);
        Assert.Equal(2, corpus.Description.Report!.CutDocuments);
        Assert.All(documents, document => Assert.EndsWith("\n", document, StringComparison.Ordinal));
        Assert.Equal(text.ToString(), string.Concat(documents));
        var json = await BuildAsync(Source(_folder.Write("a.jsonl", JsonSerializer.Serialize(new { text = text.ToString() }))), options => options with { SequenceLength = 1024 });
        Assert.Equal(documents, Documents(json));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public async Task Build_AnyNumberOfWorkers_GivesTheSameBytes(int workers)
    {
        var source = Source(Lines(Words(6, 30000).Chunk(10).Select(words => string.Join(' ', words))));
        Func<CorpusOptions, CorpusOptions> options = o => o with { ShuffleSeed = 1, HeldOutShare = 0.1, ShardTokens = 5000 };
        var one = await BuildAsync(source, o => options(o) with { Workers = 2 });
        var other = await BuildAsync(source, o => options(o) with { Workers = workers });
        AssertSameFiles(one.Directory, other.Directory);
    }

    [Fact]
    public async Task Build_InterruptedAnywhere_ContinuesToTheSameBytes()
    {
        var lines = Words(6, 40000).Chunk(10).Select(words => string.Join(' ', words)).ToList();
        lines.Insert(1000, lines[5]);
        var a = Lines(lines.Take(2500));
        var b = Lines(lines.Skip(2500));
        File.AppendAllText(b, "{broken\n");
        var options = Options(new CorpusSource { Paths = [a], Weight = 1 }, new CorpusSource { Paths = [b], Weight = 2, Epochs = 2 }) with { ShuffleSeed = 1, HeldOutShare = 0.1, ShardTokens = 5000 };
        var tuning = new BuildTuning { CheckpointBytes = 20_000, BatchBytes = 5_000, ReportInterval = TimeSpan.Zero };
        var reports = 0;
        await CorpusBuilder.BuildAsync(options with { Directory = _folder["whole"] }, Tokenizer, new Immediate(_ => reports++), tuning, Timeout());
        var random = new Random(9);
        for (var round = 0; round < 12; round++)
        {
            // Stops several times, each time somewhere else.
            var directory = _folder[$"round{round}"];
            for (var attempt = 1; ; attempt++)
            {
                using var stop = new CancellationTokenSource();
                var left = random.Next(1, 1 + reports * attempt / 4);
                var progress = new Immediate(_ =>
                {
                    if (--left == 0) stop.Cancel();
                });
                try
                {
                    await CorpusBuilder.BuildAsync(options with { Directory = directory, Workers = 1 + round % 3 }, Tokenizer, progress, tuning, stop.Token);
                    break;
                }
                catch (OperationCanceledException)
                {
                    Assert.False(File.Exists(Path.Combine(directory, Corpus.FileName)));
                }
            }

            AssertSameFiles(_folder["whole"], directory);
        }
    }

    [Fact]
    public async Task Build_KilledAnywhere_ContinuesToTheSameBytes()
    {
        var options = Options(Source(Lines(Words(6, 20000).Chunk(10).Select(words => string.Join(' ', words))))) with { ShuffleSeed = 1, HeldOutShare = 0.1, ShardTokens = 2000 };
        var tuning = new BuildTuning { CheckpointBytes = 20_000, BatchBytes = 5_000, ReportInterval = TimeSpan.Zero };
        var random = new Random(9);
        var images = 0;
        var stage = CorpusStage.Tokenizing;
        // The files as they are at some moment, with what was buffered lost, are what a killed process leaves.
        var progress = new Immediate(report =>
        {
            if (report.Stage == stage && random.Next(stage == CorpusStage.Tokenizing ? 5 : 300) > 0) return;
            stage = report.Stage;
            CopyFolder(options.Directory, _folder[$"image{images++}"]);
        });
        await CorpusBuilder.BuildAsync(options, Tokenizer, progress, tuning, Timeout());
        Assert.InRange(images, 5, 100);
        for (var image = 0; image < images; image++)
        {
            var directory = _folder[$"image{image}"];
            Directory.CreateDirectory(directory);
            File.WriteAllText(Path.Combine(directory, "shard-00001.safetensors.1-2.tmp"), "rest");
            if (!Directory.Exists(Path.Combine(directory, ".build")) || !File.Exists(Path.Combine(directory, ".build", "state.json"))) File.Delete(Path.Combine(directory, "shard-00001.safetensors.1-2.tmp"));
            await CorpusBuilder.BuildAsync(options with { Directory = directory }, Tokenizer, progress: null, tuning, Timeout());
            AssertSameFiles(options.Directory, directory);
        }
    }

    [Fact]
    public async Task Build_ContinuedWithOtherOptionsOrFiles_IsRefused()
    {
        var path = Lines(Words(6, 20000));
        var options = Options(Source(path)) with { MaxBadRecords = 0 };
        File.AppendAllText(path, "{broken\n");
        await Assert.ThrowsAsync<RhoException>(() => CorpusBuilder.BuildAsync(options, Tokenizer, progress: null, new BuildTuning { CheckpointBytes = 1000 }, Timeout()));

        async Task RefusedAsync(CorpusOptions other, string expected)
        {
            var error = await Assert.ThrowsAsync<RhoException>(() => CorpusBuilder.BuildAsync(other, Tokenizer, progress: null, new BuildTuning { CheckpointBytes = 1000 }, Timeout()));
            Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        }

        await RefusedAsync(options with { SequenceLength = 99 }, "another sequence length (64, now 99)");
        await RefusedAsync(options with { ShuffleSeed = 4 }, "another shuffle seed (none, now 4)");
        await RefusedAsync(options with { Sources = [Source(path) with { Template = "{text}" }] }, "another set of sources");
        await RefusedAsync(options with { Sources = [Source(path), Source(Lines(["x"]))] }, "another set of sources");

        // The limit of bad records may be raised: the build goes on and ends.
        var corpus = await CorpusBuilder.BuildAsync(options with { MaxBadRecords = 1 }, Tokenizer, progress: null, new BuildTuning { CheckpointBytes = 1000 }, Timeout());
        Assert.Equal(1, corpus.Description.Report!.Dropped.BadRecords);
        Assert.False(Directory.Exists(Path.Combine(corpus.Directory, ".build")));
        await RefusedAsync(options, "already holds a corpus");
        await RefusedAsync(options with { Directory = _folder.Path }, "is not empty");
    }

    [Fact]
    public async Task Build_TwiceAtOnce_SecondIsRefused()
    {
        var options = Options(Source(Lines(Words(6, 20000))));
        RhoException? second = null;
        var progress = new Immediate(_ => second ??= Assert.Throws<RhoException>(() => CorpusBuilder.BuildAsync(options, Tokenizer).GetAwaiter().GetResult()));
        await CorpusBuilder.BuildAsync(options, Tokenizer, progress, Timeout());
        Assert.Contains("another process is building", second!.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Build_Progress_GoesFromStartToEndOfBothStages()
    {
        var reports = new List<CorpusProgress>();
        await CorpusBuilder.BuildAsync(Options(Source(Lines(Words(6, 50000)))), Tokenizer, new Immediate(reports.Add), Timeout());
        Assert.Equal([CorpusStage.Tokenizing, CorpusStage.Packing], reports.Select(report => report.Stage).Distinct());
        foreach (var stage in reports.GroupBy(report => report.Stage))
        {
            Assert.Equal(stage.Last().Total, stage.Last().Done);
            Assert.Equal(TimeSpan.Zero, stage.Last().Remaining);
            Assert.Equal(stage.Select(report => report.Done).Order(), stage.Select(report => report.Done));
        }
    }

    [Fact]
    public async Task LoadAll_ReadsAMixture_AndNamesWhatIsWrong()
    {
        _folder.Write("web.jsonl", "{\"body\":\"a b c d\"}");
        _folder.Write("qa.csv", "question,answer\n1+1?,2\n");
        var path = _folder.Write("mixture.json", """
            [ // six to one
              {"paths": ["web.jsonl"], "name": "web", "weight": 6, "field": "body"},
              {"paths": ["qa.csv"], "weight": 1, "epochs": 2, "template": "{question} {answer}", "format": "csv"},
            ]
            """);
        var sources = CorpusSource.LoadAll(path);
        Assert.Equal([6.0, 1.0], sources.Select(source => source.Weight!.Value));
        Assert.Equal(SourceFormat.Csv, sources[1].Format);
        Assert.Equal(["a b c d", "1+1? 2"], Documents(await BuildAsync([.. sources])).Take(2));

        void Fails(string json, string expected)
            => Assert.Contains(expected, Assert.ThrowsAny<RhoException>(() => CorpusSource.LoadAll(_folder.Write("bad.json", json))).Message, StringComparison.Ordinal);
        Fails("[]", "array of sources");
        Fails("[null]", "array of sources");
        Fails("[{\"paths\":[\"a\"],\"wieght\":1}]", "wieght");
        Fails("[{\"weight\":1}]", "paths");
        Fails("[{\"paths\":[\"a\"],\"format\":\"xml\"}]", "format");
        Assert.Throws<NotFoundException>(() => CorpusSource.LoadAll(_folder["no.json"]));
    }

    [Theory]
    [InlineData(1, 0.0, "sequence length 1")]
    [InlineData(64, 1.0, "held-out share 1")]
    public async Task Build_ImpossibleOptions_NamesThem(int length, double share, string expected)
        => await FailsAsync(Source(Lines(["a"])), expected, options => options with { SequenceLength = length, HeldOutShare = share });

    [Fact]
    public async Task Inspect_CountsWhatIsThere()
    {
        var words = Words(2, 300).Distinct().ToArray();
        var corpus = await BuildAsync(Source(Lines(words)), options => options with { ShardTokens = 640 });
        var inspection = CorpusInspector.Inspect(corpus);
        Assert.Equal(corpus.Tokens, inspection.Shards.Sum(shard => shard.Tokens));
        Assert.Equal(corpus.Shards.Count, inspection.Shards.Count);
        Assert.Equal(corpus.Description.Report!.LongestDocument, inspection.DocumentLengths.Largest);
        Assert.Equal(words.Length, inspection.MostFrequent.Single(count => count.Token == Tokenizer.EosId).Count);
        Assert.InRange(inspection.UnigramEntropy, 1, Math.Log(inspection.TokensUsed));
        var sample = CorpusInspector.Sample(corpus, Tokenizer, corpus.Shards[0].Sequences);
        Assert.Contains(sample.Select(piece => piece.Text), text => text.Contains("<|end_of_text|>", StringComparison.Ordinal));
        Assert.Throws<RhoException>(() => CorpusInspector.Sample(corpus, Tokenizer, corpus.Sequences));
        var other = BpeTrainer.Train(["other"], new BpeTrainerOptions { VocabularySize = 300 });
        Assert.Throws<MismatchException>(() => CorpusInspector.Sample(corpus, other, 0));
    }

    internal static IEnumerable<string> Words(int seed, int count)
    {
        var random = new Random(seed);
        return Enumerable.Range(0, count).Select(_ => string.Concat(Enumerable.Range(0, random.Next(2, 9)).Select(_ => (char)('a' + random.Next(26)))));
    }

    private static int Length(string document) => Tokenizer.Encode(document, addSpecialTokens: true).Length + 1;

    private static int[] Tokens(Corpus corpus)
    {
        var all = new List<int>();
        for (var i = 0; i < corpus.Shards.Count; i++)
        {
            using var shard = corpus.OpenShard(i);
            var tokens = new int[shard.Sequences * shard.Length];
            shard.Read(0, tokens);
            all.AddRange(tokens);
        }

        return [.. all];
    }

    /// <summary>The texts of all documents, in order of their numbers.</summary>
    private static List<string> Documents(Corpus corpus)
    {
        var documents = new SortedDictionary<long, List<int>>();
        for (var i = 0; i < corpus.Shards.Count; i++)
        {
            using var shard = corpus.OpenShard(i);
            var tokens = new int[shard.Length];
            foreach (var piece in shard.Pieces(0, (int)shard.Sequences))
            {
                shard.Read(piece.Sequence, tokens);
                if (!documents.TryGetValue(piece.Document, out var document)) documents[piece.Document] = document = [];
                document.AddRange(tokens.AsSpan(piece.Start, piece.Length));
            }
        }

        Assert.All(documents.Values, document => Assert.Equal(Tokenizer.EosId, document[^1]));
        return [.. documents.Values.Select(document => Tokenizer.Decode(document.ToArray(), skipSpecialTokens: true))];
    }

    private static void AssertSameFiles(string expected, string actual)
    {
        string[] Files(string folder) => [.. Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Select(file => Path.GetRelativePath(folder, file)).Order(StringComparer.Ordinal)];
        Assert.Equal(Files(expected), Files(actual));
        foreach (var file in Files(expected)) Assert.True(File.ReadAllBytes(Path.Combine(expected, file)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(actual, file))), $"{file} differs");
    }

    private static void CopyFolder(string from, string to)
    {
        foreach (var file in Directory.EnumerateFiles(from, "*", SearchOption.AllDirectories))
        {
            var target = Path.Combine(to, Path.GetRelativePath(from, file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            using var copy = File.Create(target);
            if (Path.GetFileName(file) == "lock") continue; // nobody but its owner can read it
            using var source = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
            source.CopyTo(copy);
        }
    }

    private static CorpusSource Source(string path) => new() { Paths = [path] };

    private static CancellationToken Timeout() => new CancellationTokenSource(TimeSpan.FromMinutes(2)).Token;

    private string Lines(IEnumerable<string> texts, string name = "lines")
        => _folder.Write($"{name}-{Guid.NewGuid():N}.jsonl", string.Concat(texts.Select(text => JsonSerializer.Serialize(new { text }) + "\n")));

    private CorpusOptions Options(params CorpusSource[] sources) => new() { Sources = sources, Directory = _folder[$"out-{Guid.NewGuid():N}"], SequenceLength = 64 };

    private Task<Corpus> BuildAsync(CorpusSource source, Func<CorpusOptions, CorpusOptions>? change = null) => BuildAsync([source], change);

    private Task<Corpus> BuildAsync(CorpusSource[] sources, Func<CorpusOptions, CorpusOptions>? change = null)
        => CorpusBuilder.BuildAsync((change ?? (options => options))(Options(sources)), Tokenizer, progress: null, Timeout());

    private async Task FailsAsync(CorpusSource source, string expected, Func<CorpusOptions, CorpusOptions>? change = null)
    {
        var error = await Assert.ThrowsAnyAsync<RhoException>(() => BuildAsync(source, change));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    private sealed class Immediate(Action<CorpusProgress> action) : IProgress<CorpusProgress>
    {
        public void Report(CorpusProgress value) => action(value);
    }
}

using System.Runtime.InteropServices;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;
using Rho.Formats;
using Rho.Model;
using Rho.Protocol.Scoring.V1;
using Rho.TestSupport;
using Wire = Rho.Protocol.Scoring.V1;

namespace Rho.Scoring.Tests;

/// <summary>The service on the wire: what the messages hold, and which status each mistake gets.</summary>
public sealed class ReferenceScorerServiceTests : IAsyncLifetime
{
    private readonly TemporaryFolder _folder = new();
    private readonly HashModel _model = new();
    private ScoringHost _host = null!;
    private GrpcChannel _channel = null!;

    private ReferenceScorer.ReferenceScorerClient Client => new(_channel);

    public async ValueTask InitializeAsync()
    {
        _host = await TestScoring.StartAsync(_model, new ScoringOptions { CacheDirectory = _folder["cache"], MaxSequenceLength = 5000, MaxShardTokens = 1_000_000 });
        _channel = GrpcChannel.ForAddress(_host.Address);
    }

    public async ValueTask DisposeAsync()
    {
        _channel.Dispose();
        await _host.DisposeAsync().AsTask().WaitAsync(TestScoring.Patience);
        _folder.Dispose();
    }

    [Fact]
    public async Task Describe_SaysWhatIsServed()
    {
        var description = await Client.DescribeAsync(new DescribeRequest { TokenizerFingerprint = _model.TokenizerFingerprint }, deadline: Deadline());
        Assert.Equal(_model.Fingerprint, description.Reference);
        Assert.Equal(1000, description.VocabularySize);
        Assert.Equal([Wire.LossEncoding.F16, Wire.LossEncoding.F32, Wire.LossEncoding.Log8], description.Encodings);

        // The probe batch as the proto's comment defines it.
        var expected = new float[256];
        var tokens = new int[256];
        for (var i = 0; i < 256; i++)
        {
            var x = (ulong)(((UInt128)(i + 1) * 0x9E3779B97F4A7C15UL) & ulong.MaxValue) >> 16;
            tokens[i] = (int)((x ^ (x >> 29)) % 1000);
        }

        new HashModel().Score(tokens, 4, 64, default, expected, default);
        Assert.Equal(expected, MemoryMarshal.Cast<byte, float>(description.ProbeLosses.Span).ToArray());
    }

    [Fact]
    public async Task Describe_OtherTokenizer_IsRefusedWithBothFingerprints()
    {
        var error = await Assert.ThrowsAsync<RpcException>(async () => await Client.DescribeAsync(new DescribeRequest { TokenizerFingerprint = "sha256:other" }, deadline: Deadline()));
        Assert.Equal(StatusCode.FailedPrecondition, error.StatusCode);
        Assert.Contains("sha256:other", error.Status.Detail, StringComparison.Ordinal);
        Assert.Contains(_model.TokenizerFingerprint, error.Status.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task ScoreShard_TwoTimes_TokensCrossTheWireOnce()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 60, 700, withDocuments: true);
        var (first, source) = await ScoreShardAsync(shard, Wire.LossEncoding.F32);
        Assert.Equal(LossSource.Scored, source);
        Assert.Equal(Expected(shard), MemoryMarshal.Cast<byte, float>(first).ToArray());
        var (second, cached) = await ScoreShardAsync(shard, Wire.LossEncoding.F32, mayAsk: false);
        Assert.Equal(LossSource.Cache, cached);
        Assert.Equal(first, second);
    }

    [Fact]
    public async Task ScoreShard_EveryMessage_IsUnder85000Bytes()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 8, 5000);
        await ScoreShardAsync(shard, Wire.LossEncoding.F32, inspect: message => Assert.True(message.CalculateSize() < 85_000));
    }

    [Theory]
    [InlineData("reference", StatusCode.FailedPrecondition, "is not served here")]
    [InlineData("tokenizer", StatusCode.FailedPrecondition, "tokenizers differ")]
    [InlineData("hash", StatusCode.InvalidArgument, "shard.sha256")]
    [InlineData("layout", StatusCode.InvalidArgument, "shard.layout_sha256")]
    [InlineData("type", StatusCode.InvalidArgument, "shard.token_type")]
    [InlineData("length", StatusCode.InvalidArgument, "at most 5000")]
    [InlineData("zero", StatusCode.InvalidArgument, "shard.length is 0")]
    [InlineData("sequences", StatusCode.InvalidArgument, "at most 1000000 tokens")]
    [InlineData("first", StatusCode.InvalidArgument, "first_sequence is 61")]
    [InlineData("encoding", StatusCode.InvalidArgument, "format.encoding 9")]
    [InlineData("topk", StatusCode.InvalidArgument, "format.top_k")]
    [InlineData("noshard", StatusCode.InvalidArgument, "`shard`")]
    [InlineData("noopen", StatusCode.InvalidArgument, "must be `open`")]
    public async Task ScoreShard_BadOpening_SaysWhatIsWrong(string mistake, StatusCode status, string message)
    {
        var open = new ShardOpen
        {
            Shard = new Shard { Sha256 = new string('0', 64), TokenType = TokenType.U16, Sequences = 60, Length = 700 },
            Format = new Wire.ScoreFormat(),
        };
        switch (mistake)
        {
            case "reference": open.Reference = "sha256:other"; break;
            case "tokenizer": open.TokenizerFingerprint = "sha256:other"; break;
            case "hash": open.Shard.Sha256 = "xyz"; break;
            case "layout": open.Shard.LayoutSha256 = "xyz"; break;
            case "type": open.Shard.TokenType = TokenType.Unspecified; break;
            case "length": open.Shard.Length = 5001; break;
            case "zero": open.Shard.Length = 0; break;
            case "sequences": open.Shard.Sequences = 1_000_000; break;
            case "first": open.FirstSequence = 61; break;
            case "encoding": open.Format.Encoding = (Wire.LossEncoding)9; break;
            case "topk": open.Format.TopK = 17; break;
            case "noshard": open.Shard = null; break;
        }

        using var call = Client.ScoreShard(deadline: Deadline());
        await call.RequestStream.WriteAsync(mistake == "noopen" ? new ScoreShardRequest { Tokens = new Wire.TokenBlock() } : new ScoreShardRequest { Open = open });
        var error = await Assert.ThrowsAsync<RpcException>(async () =>
        {
            while (await call.ResponseStream.MoveNext()) { }
        });
        Assert.Equal(status, error.StatusCode);
        Assert.Contains(message, error.Status.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task ScoreShard_TokensOfAnotherShard_IsDataLoss()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 60, 700);
        using var other = TestScoring.Shard(_folder["other"], 60, 700, seed: 2);
        var error = await Assert.ThrowsAsync<RpcException>(() => ScoreShardAsync(shard, Wire.LossEncoding.F16, tokensOf: other));
        Assert.Equal(StatusCode.DataLoss, error.StatusCode);
    }

    [Theory]
    [InlineData(700)] // a chunk is a message
    [InlineData(10_000)] // a chunk is one sequence in two messages (F32 with entropies)
    public async Task ScoreShard_WhenTheServiceStops_EndsWithTheSequenceReached(int length)
    {
        using var shard = TestScoring.Shard(_folder["shard"], 140_000 / length, length);
        // The stream is open when the service stops, however slow or quick the machine is: the probe and two chunks are scored, no more.
        var host = await TestScoring.StartAsync(new HashModel { HoldAfter = 3 });
        using var channel = GrpcChannel.ForAddress(host.Address);
        using var call = await OpenAsync(new ReferenceScorer.ReferenceScorerClient(channel), shard, Wire.LossEncoding.F32, entropy: true);
        var received = 0L;
        Task? stopping = null;
        var error = await Assert.ThrowsAsync<RpcException>(async () =>
        {
            while (await call.ResponseStream.MoveNext())
            {
                if (call.ResponseStream.Current.SendTokens is not null) await SendAsync(call, shard);
                if (call.ResponseStream.Current.Block is not { } block) continue;
                received = block.FirstToken + block.Scores.Losses.Length / sizeof(float);
                stopping ??= host.DisposeAsync().AsTask();
            }
        });
        await stopping!.WaitAsync(TestScoring.Patience);
        Assert.True(error.StatusCode == StatusCode.Unavailable, error.ToString());
        Assert.Equal((received / length).ToString(), error.GetRpcStatus()!.GetDetail<Google.Rpc.ErrorInfo>()!.Metadata["sequence_reached"]);
        Assert.InRange(received, 1, 2 * 16_384);
    }

    [Fact]
    public async Task Score_SequencesOfAllSizes_AreAnsweredById()
    {
        var random = new Random(3);
        var sequences = Enumerable.Range(0, 300).ToDictionary(i => (ulong)i, _ => Enumerable.Range(0, random.Next(1, 2000)).Select(_ => random.Next(1000)).ToArray());
        using var call = Client.Score(deadline: Deadline());
        await call.RequestStream.WriteAsync(new ScoreRequest { Open = new ScoreOpen { Format = new Wire.ScoreFormat { Encoding = Wire.LossEncoding.F32 } } });
        var sending = Task.Run(async () =>
        {
            foreach (var (id, tokens) in sequences)
                await call.RequestStream.WriteAsync(new ScoreRequest { Sequence = new Sequence { Id = id, Tokens = ByteString.CopyFrom(MemoryMarshal.AsBytes(tokens.AsSpan())) } });
            await call.RequestStream.CompleteAsync();
        });
        var answered = new HashSet<ulong>();
        while (await call.ResponseStream.MoveNext())
        {
            var response = call.ResponseStream.Current;
            var expected = new float[sequences[response.Id].Length];
            new HashModel().Score(sequences[response.Id], 1, expected.Length, default, expected, default);
            Assert.Equal(expected, MemoryMarshal.Cast<byte, float>(response.Scores.Losses.Span).ToArray());
            Assert.True(answered.Add(response.Id));
        }

        await sending;
        Assert.Equal(300, answered.Count);
    }

    [Fact]
    public async Task Score_IdOutsideTheVocabulary_NamesSequenceAndPosition()
    {
        using var call = Client.Score(deadline: Deadline());
        await call.RequestStream.WriteAsync(new ScoreRequest { Open = new ScoreOpen { TokenType = TokenType.U16 } });
        await call.RequestStream.WriteAsync(new ScoreRequest { Sequence = new Sequence { Id = 77, Tokens = ByteString.CopyFrom(1, 0, 2, 0, 0xE8, 3) } });
        var error = await Assert.ThrowsAsync<RpcException>(async () =>
        {
            while (await call.ResponseStream.MoveNext()) { }
        });
        Assert.Equal(StatusCode.InvalidArgument, error.StatusCode);
        Assert.Contains("token id 1000 in sequence 77 at position 2", error.Status.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Score_ClientVanishes_LeavesNothingBehind()
    {
        var host = await TestScoring.StartAsync(new HashModel { Rate = 1000 });
        using (var channel = GrpcChannel.ForAddress(host.Address))
        {
            var client = new ReferenceScorer.ReferenceScorerClient(channel);
            using (var call = client.Score(deadline: Deadline()))
            {
                await call.RequestStream.WriteAsync(new ScoreRequest { Open = new ScoreOpen { TokenType = TokenType.U16 } });
                for (var i = 0; i < 20; i++)
                    await call.RequestStream.WriteAsync(new ScoreRequest { Sequence = new Sequence { Id = (ulong)i, Tokens = ByteString.CopyFrom(new byte[4000]) } });
                await EventuallyAsync(async () => (await client.InfoAsync(new InfoRequest(), deadline: Deadline())).QueuedTokens > 20_000);
            }

            await EventuallyAsync(async () => await client.InfoAsync(new InfoRequest(), deadline: Deadline()) is { QueuedTokens: 0, Streams: 0 });
        }

        await host.DisposeAsync().AsTask().WaitAsync(TestScoring.Patience);
    }

    [Fact]
    public async Task Coverage_TellsCachedFromMissing()
    {
        using var cached = TestScoring.Shard(_folder["a"], 60, 700);
        using var missing = TestScoring.Shard(_folder["b"], 60, 700, seed: 9);
        await ScoreShardAsync(cached, Wire.LossEncoding.F16);
        var request = new CoverageRequest { Shards = { ShardOf(missing), ShardOf(cached) } };
        var coverage = await Client.CoverageAsync(request, deadline: Deadline());
        Assert.Equal([Wire.CoverageState.Missing, Wire.CoverageState.Cached], coverage.Shards.Select(shard => shard.State));
        Assert.Equal([0L, 60L], coverage.Shards.Select(shard => shard.CachedSequences));
        Assert.True(coverage.TimeLeftMs > 0);
    }

    [Fact]
    public async Task Streams_PastTheLimit_AreRefusedWithATimeToRetry()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 60, 700);
        var host = await TestScoring.StartAsync(new HashModel { Rate = 5000 }, new ScoringOptions { MaxStreams = 1 });
        using (var channel = GrpcChannel.ForAddress(host.Address))
        {
            var client = new ReferenceScorer.ReferenceScorerClient(channel);
            using var first = await OpenAsync(client, shard, Wire.LossEncoding.F16);
            Assert.True(await first.ResponseStream.MoveNext());
            using var second = client.ScoreShard(deadline: Deadline()); // refused before it says anything: its first write may find the call over
            var error = await Assert.ThrowsAsync<RpcException>(() => second.ResponseStream.MoveNext());
            Assert.Equal(StatusCode.ResourceExhausted, error.StatusCode);
            Assert.Equal("1", error.Trailers.GetValue("retry-after"));
        }

        await host.DisposeAsync().AsTask().WaitAsync(TestScoring.Patience);
    }

    [Fact]
    public async Task Metrics_AfterWork_AreScraped()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 60, 700);
        await ScoreShardAsync(shard, Wire.LossEncoding.F16);
        await ScoreShardAsync(shard, Wire.LossEncoding.F16);
        using var http = new HttpClient();
        var text = await http.GetStringAsync(new Uri(_host.HttpAddress!, "/metrics")).WaitAsync(TestScoring.Patience);
        Assert.Contains("rho_scoring_tokens_scored", text, StringComparison.Ordinal);
        Assert.Contains("rho_scoring_queue_tokens", text, StringComparison.Ordinal);
        Assert.Contains("rho_scoring_tokens_from_cache", text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Start_CacheHoldsScoresOfAnotherModelUnderThisFingerprint_IsRefused()
    {
        var error = await Assert.ThrowsAsync<MismatchException>(() => TestScoring.StartAsync(new HashModel { Shift = 1 }, new ScoringOptions { CacheDirectory = _folder["cache"] }));
        Assert.Contains("probe batch", error.Message, StringComparison.Ordinal);
    }

    private static DateTime Deadline() => DateTime.UtcNow + TestScoring.Patience;

    private static float[] Expected(TokenShard shard)
    {
        var tokens = new int[shard.Sequences * shard.Length];
        var documents = new int[tokens.Length];
        shard.Read(0, tokens);
        shard.ReadDocuments(0, documents);
        var losses = new float[tokens.Length];
        new HashModel().Score(tokens, (int)shard.Sequences, shard.Length, documents, losses, default);
        return losses;
    }

    private static Shard ShardOf(TokenShard shard)
    {
        var request = Requests.Of(shard, documentsSeeEachOther: false);
        return new Shard { Sha256 = request.Sha256, LayoutSha256 = request.LayoutSha256, TokenType = TokenType.U16, Sequences = shard.Sequences, Length = shard.Length };
    }

    private static async Task<AsyncDuplexStreamingCall<ScoreShardRequest, ScoreShardResponse>> OpenAsync(ReferenceScorer.ReferenceScorerClient client, TokenShard shard, Wire.LossEncoding encoding, bool entropy = false)
    {
        var call = client.ScoreShard(deadline: Deadline());
        await call.RequestStream.WriteAsync(new ScoreShardRequest { Open = new ShardOpen { Shard = ShardOf(shard), Format = new Wire.ScoreFormat { Encoding = encoding, Entropy = entropy } } });
        return call;
    }

    private static async Task SendAsync(AsyncDuplexStreamingCall<ScoreShardRequest, ScoreShardResponse> call, TokenShard shard)
    {
        foreach (var block in Requests.Blocks(shard, documentsSeeEachOther: false))
        {
            await call.RequestStream.WriteAsync(new ScoreShardRequest
            {
                Tokens = new Wire.TokenBlock { FirstToken = block.FirstToken, Tokens = ByteString.CopyFrom(block.Tokens.Span), Layout = ByteString.CopyFrom(block.Layout.Span) },
            });
        }
    }

    private static async Task EventuallyAsync(Func<Task<bool>> condition)
    {
        using var patience = new CancellationTokenSource(TestScoring.Patience);
        while (!await condition()) await Task.Delay(20, patience.Token);
    }

    private async Task<(byte[] Losses, LossSource Source)> ScoreShardAsync(
        TokenShard shard, Wire.LossEncoding encoding, bool mayAsk = true, TokenShard? tokensOf = null, Action<ScoreShardResponse>? inspect = null)
    {
        using var call = await OpenAsync(Client, shard, encoding);
        var losses = new List<byte>();
        var source = LossSource.Unspecified;
        while (await call.ResponseStream.MoveNext())
        {
            var response = call.ResponseStream.Current;
            inspect?.Invoke(response);
            if (response.SendTokens is not null)
            {
                Assert.True(mayAsk, "the service asked for tokens that it has the losses of");
                await SendAsync(call, tokensOf ?? shard);
            }

            if (response.Block is not { } block) continue;
            losses.AddRange(block.Scores.Losses);
            source = block.Source;
        }

        return ([.. losses], source);
    }
}

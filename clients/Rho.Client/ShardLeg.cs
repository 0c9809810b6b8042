using System.Diagnostics;
using System.Runtime.CompilerServices;
using Google.Protobuf;
using Grpc.Core;
using Rho.Formats;
using Rho.Protocol.Scoring.V1;
using WireBlock = Rho.Protocol.Scoring.V1.LossBlock;

namespace Rho.Client;

/// <summary>One stream of a shard's losses from one scorer: what it sends is checked, put together to whole sequences and passed on.</summary>
internal sealed class ShardLeg(
    string address, AsyncDuplexStreamingCall<ScoreShardRequest, ScoreShardResponse> call, TokenShard shard, ShardIdentity identity, ScorerClientOptions options) : IAsyncDisposable
{
    /// <summary>Bytes of tokens and layout in a message, which stays under 85,000 with what is around them.</summary>
    private const int MessageBytes = 80_000;

    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly CancellationTokenSource _stop = new();
    private Task _uploading = Task.CompletedTask;
    private Exception? _uploadFailure;

    public TimeSpan Age => Stopwatch.GetElapsedTime(_started);

    public async IAsyncEnumerable<EncodedLossBlock> ReadAsync(long firstSequence, long end, [EnumeratorCancellation] CancellationToken token)
    {
        var nextToken = firstSequence * shard.Length;
        WireBlock? begun = null; // a sequence whose scores come in several messages
        while (nextToken < end * shard.Length)
        {
            var response = await NextAsync(token).ConfigureAwait(false);
            switch (response.KindCase)
            {
                case ScoreShardResponse.KindOneofCase.SendTokens:
                    _uploading = UploadAsync(token);
                    break;
                case ScoreShardResponse.KindOneofCase.Block:
                    var block = response.Block;
                    var tokens = Tokens(block.Scores);
                    if (block.FirstToken != nextToken || tokens == 0 || tokens > end * shard.Length - nextToken)
                        throw Broken($"sent scores of tokens {block.FirstToken} to {block.FirstToken + tokens} where {nextToken} was next and {end * shard.Length} the end");
                    ClientMetrics.Tokens.Add(tokens, new KeyValuePair<string, object?>("source", block.Source == LossSource.Cache ? "cache" : "scored"));
                    nextToken += tokens;
                    begun = begun is null ? block : Join(begun, block);
                    var have = Tokens(begun.Scores);
                    var whole = have / shard.Length;
                    if (whole == 0) break;
                    if (begun.FirstToken % shard.Length != 0 || whole * shard.Length != have) throw Broken($"cut scores inside a sequence after whole ones, at token {nextToken}");
                    yield return new EncodedLossBlock(begun.FirstToken / shard.Length, whole, begun.Scores.Losses.Memory, begun.Source == LossSource.Cache)
                    {
                        Entropies = begun.Scores.Entropies.Memory,
                        TopIds = begun.Scores.TopIds.Memory,
                        TopLogProbabilities = begun.Scores.TopLogProbabilities.Memory,
                    };
                    begun = null;
                    break;
                case ScoreShardResponse.KindOneofCase.Waiting or ScoreShardResponse.KindOneofCase.Opened:
                    break;
                default:
                    throw Broken($"sent a message that is not known here ({response.KindCase})");
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        call.Dispose();
        await _uploading.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
    }

    private async Task<ScoreShardResponse> NextAsync(CancellationToken token)
    {
        using var silence = CancellationTokenSource.CreateLinkedTokenSource(token, _stop.Token);
        silence.CancelAfter(options.StallTimeout);
        try
        {
            if (await call.ResponseStream.MoveNext(silence.Token).ConfigureAwait(false)) return call.ResponseStream.Current;
        }
        catch (Exception) when (_uploadFailure is not null)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(_uploadFailure);
        }
        catch (Exception e) when (silence.IsCancellationRequested && !token.IsCancellationRequested)
        {
            throw new TimeoutException($"nothing came for {options.StallTimeout.TotalSeconds:0} s", e);
        }

        throw Broken("ended the stream before the shard's last sequence");
    }

    private async Task UploadAsync(CancellationToken token)
    {
        try
        {
            await SendTokensAsync(token).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not (RpcException or InvalidOperationException or OperationCanceledException))
        {
            // The shard cannot be read; what the scorer has to say shows at the reading end.
            _uploadFailure = e;
            await _stop.CancelAsync().ConfigureAwait(false);
        }
    }

    private async Task SendTokensAsync(CancellationToken token)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(token, _stop.Token);
        var width = shard.TokenType.Size();
        var atOnce = MessageBytes / (width + (identity.HasLayout ? 1 : 0));
        var sequences = Math.Max(1, atOnce / shard.Length);
        var layout = identity.HasLayout ? new byte[sequences * shard.Length] : [];
        for (long sequence = 0; sequence < shard.Sequences; sequence += sequences)
        {
            var count = (int)Math.Min(sequences, shard.Sequences - sequence);
            if (identity.HasLayout) identity.ReadLayout(shard, sequence, layout.AsSpan(0, count * shard.Length));
            for (var start = 0; start < count * shard.Length; start += atOnce)
            {
                var tokens = Math.Min(atOnce, count * shard.Length - start);
                var block = new TokenBlock
                {
                    FirstToken = sequence * shard.Length + start,
                    Tokens = ByteString.CopyFrom(shard.TokenBytes(sequence, count).Slice(start * width, tokens * width)),
                };
                if (identity.HasLayout) block.Layout = ByteString.CopyFrom(layout, start, tokens);
                await call.RequestStream.WriteAsync(new ScoreShardRequest { Tokens = block }, stop.Token).ConfigureAwait(false);
                ClientMetrics.UploadedTokens.Add(tokens);
            }
        }

        await call.RequestStream.CompleteAsync().ConfigureAwait(false);
    }

    private int Tokens(Scores scores) => scores.Tokens(options) ?? throw Broken("sent scores whose parts are not of the same number of tokens");

    private static WireBlock Join(WireBlock first, WireBlock second)
    {
        static ByteString Both(ByteString a, ByteString b) => b.Length == 0 ? a : UnsafeByteOperations.UnsafeWrap((byte[])[.. a.Span, .. b.Span]);
        return new WireBlock
        {
            FirstToken = first.FirstToken,
            Source = first.Source,
            Scores = new Scores
            {
                Losses = Both(first.Scores.Losses, second.Scores.Losses),
                Entropies = Both(first.Scores.Entropies, second.Scores.Entropies),
                TopIds = Both(first.Scores.TopIds, second.Scores.TopIds),
                TopLogProbabilities = Both(first.Scores.TopLogProbabilities, second.Scores.TopLogProbabilities),
            },
        };
    }

    private ReplicaFailedException Broken(string what) =>
        new(address, what, retryAfter: null, isInternal: true, new InvalidDataException(what));
}

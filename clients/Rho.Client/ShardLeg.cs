using System.Diagnostics;
using System.Runtime.CompilerServices;
using Google.Protobuf;
using Grpc.Core;
using Rho.Formats;
using Rho.Protocol.Scoring.V1;

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

    public async IAsyncEnumerable<EncodedLossBlock> ReadAsync(long firstSequence, long end, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var nextToken = firstSequence * shard.Length;
        EncodedScores? begun = null; // of a sequence whose scores come in several messages
        while (nextToken < end * shard.Length)
        {
            var response = await NextAsync(cancellation).ConfigureAwait(false);
            switch (response.KindCase)
            {
                case ScoreShardResponse.KindOneofCase.SendTokens:
                    _uploading = UploadAsync(_uploading, Ranges(response.SendTokens), cancellation);
                    break;
                case ScoreShardResponse.KindOneofCase.Block:
                    var block = response.Block;
                    var scores = block.Scores.ToDomain(options.Format, address);
                    if (block.FirstToken != nextToken || scores.Tokens == 0 || scores.Tokens > end * shard.Length - nextToken)
                        throw Broken($"sent scores of tokens {block.FirstToken} to {block.FirstToken + scores.Tokens} where {nextToken} was next and {end * shard.Length} the end");
                    ClientMetrics.Tokens.Add(scores.Tokens, new KeyValuePair<string, object?>("source", block.Source == LossSource.Cache ? "cache" : "scored"));
                    nextToken += scores.Tokens;
                    if (begun is { } before) scores = before.With(scores);
                    begun = scores;
                    var first = nextToken - scores.Tokens;
                    var whole = scores.Tokens / shard.Length;
                    if (whole == 0) break;
                    if (first % shard.Length != 0 || whole * shard.Length != scores.Tokens) throw Broken($"cut scores inside a sequence after whole ones, at token {nextToken}");
                    yield return new EncodedLossBlock(first / shard.Length, whole, scores, block.Source == LossSource.Cache);
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

    private async Task<ScoreShardResponse> NextAsync(CancellationToken cancellation)
    {
        using var silence = CancellationTokenSource.CreateLinkedTokenSource(cancellation, _stop.Token);
        silence.CancelAfter(options.StallTimeout);
        try
        {
            if (await call.ResponseStream.MoveNext(silence.Token).ConfigureAwait(false)) return call.ResponseStream.Current;
        }
        catch (Exception) when (_uploadFailure is not null)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(_uploadFailure);
        }
        catch (Exception e) when (silence.IsCancellationRequested && !cancellation.IsCancellationRequested)
        {
            throw new TimeoutException($"nothing came for {options.StallTimeout.TotalSeconds:0} s", e);
        }

        throw Broken("ended the stream before the shard's last sequence");
    }

    private async Task UploadAsync(Task before, List<(long First, long End)> ranges, CancellationToken cancellation)
    {
        try
        {
            await before.ConfigureAwait(false);
            foreach (var (first, end) in ranges) await SendTokensAsync(first, end, cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not (RpcException or InvalidOperationException or OperationCanceledException))
        {
            // The shard cannot be read; what the scorer has to say shows at the reading end.
            _uploadFailure = e;
            await _stop.CancelAsync().ConfigureAwait(false);
        }
    }

    private List<(long First, long End)> Ranges(SendTokens wanted)
    {
        if (wanted.Ranges.Count == 0) return [(0, shard.Sequences)];
        if (wanted.Ranges.FirstOrDefault(range => range.FirstSequence < 0 || range.EndSequence <= range.FirstSequence || range.EndSequence > shard.Sequences) is { } wrong)
            throw Broken($"asked for tokens of sequences {wrong.FirstSequence} to {wrong.EndSequence} of {shard.Sequences}");
        return [.. wanted.Ranges.Select(range => (range.FirstSequence, range.EndSequence))];
    }

    private async Task SendTokensAsync(long first, long end, CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation, _stop.Token);
        var width = shard.TokenType.Size();
        var atOnce = MessageBytes / (width + (identity.HasLayout ? 1 : 0));
        var sequences = Math.Max(1, atOnce / shard.Length);
        var layout = identity.HasLayout ? new byte[sequences * shard.Length] : [];
        for (var sequence = first; sequence < end; sequence += sequences)
        {
            var count = (int)Math.Min(sequences, end - sequence);
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
                await call.RequestStream.SendAsync(new ScoreShardRequest { Tokens = block }, stop.Token).ConfigureAwait(false);
                ClientMetrics.UploadedTokens.Add(tokens);
            }
        }
    }

    private ReplicaFailedException Broken(string what) =>
        new(address, what, retryAfter: null, isInternal: true, new InvalidDataException(what));
}

using System.Diagnostics;
using System.Runtime.CompilerServices;
using Google.Protobuf;
using Grpc.Core;
using Rho.Data;
using Rho.Protocol.Scoring.V1;

namespace Rho.Client;

/// <summary>One stream of a shard's losses from one scorer: what it sends is checked, put together to whole sequences and passed on.</summary>
internal sealed class ShardLeg(
    Replica replica, AsyncDuplexStreamingCall<ScoreShardRequest, ScoreShardResponse> call, TokenShard shard, ShardIdentity identity, ScorerClientOptions options) : IAsyncDisposable
{
    /// <summary>Bytes of tokens and layout in a message, which stays under 85,000 with what is around them.</summary>
    private const int MessageBytes = 80_000;

    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly CancellationTokenSource _stop = new();
    private Task _uploading = Task.CompletedTask;
    private Exception? _uploadFailure;
    private long _ownTokens;

    public TimeSpan Age => Stopwatch.GetElapsedTime(_started);

    public async IAsyncEnumerable<EncodedLossBlock> ReadAsync(long firstSequence, [EnumeratorCancellation] CancellationToken token)
    {
        var row = shard.Length * LossCodec.BytesPerLoss(options.Encoding);
        var nextToken = firstSequence * shard.Length;
        var partial = Array.Empty<byte>(); // of a sequence whose losses come in several messages
        var partialBytes = 0;
        Own((shard.Sequences - firstSequence) * shard.Length);
        while (nextToken < shard.Sequences * shard.Length)
        {
            var response = await NextAsync(token).ConfigureAwait(false);
            switch (response.KindCase)
            {
                case ScoreShardResponse.KindOneofCase.SendTokens:
                    _uploading = UploadAsync(token);
                    break;
                case ScoreShardResponse.KindOneofCase.Block:
                    var block = response.Block;
                    var bytes = block.Scores.Losses.Memory;
                    var tokens = bytes.Length / LossCodec.BytesPerLoss(options.Encoding);
                    if (block.FirstToken != nextToken || tokens == 0)
                        throw Broken($"sent losses of token {block.FirstToken} where {nextToken} was next");
                    var fromCache = block.Source == LossSource.Cache;
                    ClientMetrics.Tokens.Add(tokens, new KeyValuePair<string, object?>("source", fromCache ? "cache" : "scored"));
                    nextToken += tokens;
                    Own(-tokens);

                    if (partialBytes > 0 || bytes.Length < row)
                    {
                        if (partialBytes == 0) partial = new byte[row];
                        var part = bytes[..Math.Min(bytes.Length, row - partialBytes)];
                        part.CopyTo(partial.AsMemory(partialBytes));
                        partialBytes += part.Length;
                        bytes = bytes[part.Length..];
                        if (partialBytes < row) break;
                        partialBytes = 0;
                        yield return new EncodedLossBlock((nextToken - bytes.Length / LossCodec.BytesPerLoss(options.Encoding)) / shard.Length - 1, 1, partial, fromCache);
                    }

                    var whole = bytes.Length / row;
                    var rest = bytes[(whole * row)..];
                    if (whole > 0)
                    {
                        var first = (nextToken - rest.Length / LossCodec.BytesPerLoss(options.Encoding)) / shard.Length - whole;
                        yield return new EncodedLossBlock(first, whole, bytes[..(whole * row)], fromCache);
                    }

                    if (rest.Length > 0)
                    {
                        partial = new byte[row];
                        rest.CopyTo(partial);
                        partialBytes = rest.Length;
                    }

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
        Own(-_ownTokens);
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

    private void Own(long tokens)
    {
        _ownTokens += tokens;
        replica.AddOwnTokens(tokens);
    }

    private ReplicaFailedException Broken(string what) =>
        new(replica.Address, what, retryAfter: null, isInternal: true, new InvalidDataException(what));
}

using System.Diagnostics;
using System.Threading.Channels;
using Grpc.Core;
using Rho.Formats;
using Rho.Protocol.Scoring.V1;
using ShardCall = Grpc.Core.AsyncDuplexStreamingCall<Rho.Protocol.Scoring.V1.ScoreShardRequest, Rho.Protocol.Scoring.V1.ScoreShardResponse>;

namespace Rho.Client;

/// <summary>Losses of a shard, over as many streams one after another as it takes, each from the first sequence that did not arrive.</summary>
internal sealed class ShardReader(
    TokenShard shard, ShardIdentity identity, ScorerClientOptions options, Metadata headers, Replicas replicas, Agreement agreement, Failover failover)
{
    public async Task ReadAsync(long firstSequence, long end, ChannelWriter<EncodedLossBlock> output, CancellationToken cancellation)
    {
        // A run ends before all is read where its stream is to move to a replica that has less to do.
        for (var next = firstSequence; next < end;)
        {
            await failover.RunAsync(options.Budget, () => (end - next) * shard.Length, async (attempt, token) =>
            {
                using var activity = ClientMetrics.Activities.StartActivity("score shard", ActivityKind.Client);
                activity?.SetTag("rho.shard", identity.Message.Sha256);
                activity?.SetTag("rho.first_sequence", next);
                var call = await OpenHedgedAsync(attempt, OpenOf(next, end), token).ConfigureAwait(false);
                var leg = new ShardLeg(attempt.Replica.Address, call, shard, identity, options);
                await using var ending = leg.ConfigureAwait(false);
                await foreach (var block in leg.ReadAsync(next, end, token).ConfigureAwait(false))
                {
                    await output.WriteAsync(block, token).ConfigureAwait(false);
                    next = block.FirstSequence + block.Sequences;
                    attempt.Step((long)block.Sequences * shard.Length);
                    if (leg.Age > options.StreamLifetime && next < end && await ShouldMoveAsync(attempt.Replica, token).ConfigureAwait(false)) return;
                }
            }, cancellation).ConfigureAwait(false);
        }
    }

    private async Task<bool> ShouldMoveAsync(Replica replica, CancellationToken cancellation)
    {
        using var best = await replicas.ChooseAsync(except: null, tokens: 0, cancellation).ConfigureAwait(false);
        return best.Replica != replica && best.Replica.Load < replica.Load / 2;
    }

    private ScoreShardRequest OpenOf(long firstSequence, long end) => new()
    {
        Open = new ShardOpen
        {
            Reference = agreement.Reference!.Fingerprint,
            TokenizerFingerprint = options.TokenizerFingerprint ?? "",
            Shard = identity.Message,
            FirstSequence = firstSequence,
            EndSequence = end,
            Format = options.Format.ToWire(),
            TokenRanges = true,
        },
    };

    /// <summary>Opens a stream; where the attempt's replica stays silent, on another one too, and moves to the first that answers.</summary>
    private async Task<ShardCall> OpenHedgedAsync(Attempt attempt, ScoreShardRequest open, CancellationToken cancellation)
    {
        var first = attempt.Replica;
        using var lost = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var opening = new List<Task<(Replica Replica, ShardCall Call)>> { OpenAsync(first, open, lost.Token) };
        try
        {
            var silence = Task.Delay(options.HedgeAfter, lost.Token);
            if (await Task.WhenAny(opening[0], silence).ConfigureAwait(false) == silence && !cancellation.IsCancellationRequested)
            {
                using var second = await replicas.ChooseAsync(except: first, tokens: 0, cancellation).ConfigureAwait(false);
                if (second.Replica != first)
                {
                    ClientMetrics.Hedges.Add(1);
                    opening.Add(OpenAsync(second.Replica, open, lost.Token));
                }
            }

            while (true)
            {
                var done = await Task.WhenAny(opening).ConfigureAwait(false);
                opening.Remove(done);
                if (!done.IsCompletedSuccessfully && opening.Count > 0) continue;
                var (replica, call) = await done.ConfigureAwait(false);
                if (replica != first) attempt.MoveTo(replica);
                return call;
            }
        }
        finally
        {
            await lost.CancelAsync().ConfigureAwait(false);
            foreach (var late in opening)
            {
                _ = late.ContinueWith(
                    static task =>
                    {
                        if (task.IsCompletedSuccessfully) task.Result.Call.Dispose();
                        else _ = task.Exception;
                    }, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
            }
        }
    }

    private async Task<(Replica, ShardCall)> OpenAsync(Replica replica, ScoreShardRequest open, CancellationToken cancellation)
    {
        await agreement.WithAsync(replica, cancellation).ConfigureAwait(false);
        var call = replica.Client.ScoreShard(headers, cancellationToken: CancellationToken.None);
        try
        {
            using var silence = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            silence.CancelAfter(options.StallTimeout);
            using var ending = silence.Token.UnsafeRegister(static state => ((IDisposable)state!).Dispose(), call);
            try
            {
                await call.RequestStream.SendAsync(open, silence.Token).ConfigureAwait(false);
                if (!await call.ResponseStream.MoveNext(silence.Token).ConfigureAwait(false) || call.ResponseStream.Current.KindCase != ScoreShardResponse.KindOneofCase.Opened)
                    throw new RhoException($"{replica.Address} answered ScoreShard without `opened`: it is no scorer of this version");
            }
            catch (Exception e) when (silence.IsCancellationRequested && !cancellation.IsCancellationRequested)
            {
                throw new TimeoutException($"nothing came for {options.StallTimeout.TotalSeconds:0} s", e);
            }

            return (replica, call);
        }
        catch
        {
            call.Dispose();
            throw;
        }
    }
}

using System.Diagnostics;
using System.Reflection;
using Google.Protobuf;
using Grpc.Core;
using Rho.Hosting;
using Rho.Protocol.Scoring.V1;
using Rho.Scoring.Sequences;
using Rho.Scoring.Shards;
using Domain = Rho.Scoring;
using Wire = Rho.Protocol.Scoring.V1;

namespace Rho.Scoring.Service;

/// <summary>The wire of <see cref="Scorer"/>: messages in and out, one writer per stream, and what a stopping service owes its clients.</summary>
internal sealed class ReferenceScorerService(Scorer scorer) : ReferenceScorer.ReferenceScorerBase
{
    /// <summary>Names the client that streams belong to, so that its many streams share one turn in the queue.</summary>
    public const string ClientHeader = "rho-client";

    private const int MaxCoverageShards = 400;
    private static readonly TimeSpan Heartbeat = TimeSpan.FromSeconds(5);
    private static readonly string Version = typeof(ReferenceScorerService).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "";

    public override Task<DescribeResponse> Describe(DescribeRequest request, ServerCallContext context)
    {
        var reference = scorer.Find(request.Reference, request.TokenizerFingerprint);
        return Task.FromResult(new DescribeResponse
        {
            Reference = reference.Fingerprint,
            TokenizerFingerprint = reference.TokenizerFingerprint,
            VocabularySize = reference.VocabularySize,
            ContextLength = reference.ContextLength,
            Description = reference.Description,
            Encodings = { Enum.GetValues<Formats.LossEncoding>().Select(encoding => encoding.ToWire()) },
            Entropy = reference.MaxTopK > 0,
            MaxTopK = reference.MaxTopK,
            References = { scorer.References.Select(other => other.Fingerprint) },
            ProbeLosses = ByteString.CopyFrom(reference.ProbeBytes),
            ChunkTokens = ChunkGrid.ChunkTokens,
            LeaseChunks = ChunkGrid.SegmentChunks,
        });
    }

    public override Task<InfoResponse> Info(InfoRequest request, ServerCallContext context)
    {
        var info = scorer.Status();
        return Task.FromResult(new InfoResponse
        {
            Version = Version,
            References = { info.References },
            MaxSequenceLength = info.MaxSequenceLength,
            MaxShardTokens = info.MaxShardTokens,
            MaxQueuedTokens = info.MaxQueuedTokens,
            MaxStreams = info.MaxStreams,
            QueuedTokens = info.QueuedTokens,
            Streams = info.Streams,
            TokensPerSecond = info.TokensPerSecond,
            ExpectedWaitMs = info.ExpectedWait.TotalMilliseconds,
            Cache = info.Cache,
            CacheAvailable = info.CacheAvailable,
            Draining = info.Draining,
        });
    }

    public override async Task<CoverageResponse> Coverage(CoverageRequest request, ServerCallContext context)
    {
        if (request.Shards.Count > MaxCoverageShards) throw new RhoException($"{request.Shards.Count} shards in one Coverage call; at most {MaxCoverageShards} are possible");
        var reference = scorer.Find(request.Reference, "");
        var format = request.Format.ToDomain();
        reference.Check(format);
        var shards = request.Shards.Select(shard => shard.ToDomain("", 0, 0, format)).ToList();
        var coverage = await scorer.CoverageAsync(reference, shards, context.CancellationToken);
        return new CoverageResponse
        {
            TimeLeftMs = coverage.Sum(shard => shard.TimeLeft.TotalMilliseconds),
            Shards =
            {
                coverage.Select(shard => new Wire.ShardCoverage
                {
                    State = shard.State switch
                    {
                        Domain.CoverageState.Cached => Wire.CoverageState.Cached,
                        Domain.CoverageState.InWork => Wire.CoverageState.InWork,
                        _ => Wire.CoverageState.Missing,
                    },
                    CachedSequences = shard.CachedSequences,
                    TimeLeftMs = shard.TimeLeft.TotalMilliseconds,
                }),
            },
        };
    }

    public override async Task ScoreShard(IAsyncStreamReader<ScoreShardRequest> requests, IServerStreamWriter<ScoreShardResponse> responses, ServerCallContext context)
    {
        var started = Stopwatch.GetTimestamp();
        using var counted = scorer.OpenStream();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, scorer.Draining);
        var reached = 0L;
        try
        {
            var open = await requests.MoveNext(stop.Token) ? requests.Current.Open : null;
            if (open is null) throw new RhoException("the first request of ScoreShard must be `open`");
            var reference = scorer.Find(open.Reference, open.TokenizerFingerprint);
            var format = open.Format.ToDomain();
            reference.Check(format);
            var request = open.Shard.ToDomain(ClientOf(context), open.FirstSequence, open.EndSequence, format) with { TakesRanges = open.TokenRanges };
            Activity.Current?.SetTag("rho.shard", request.Sha256);
            Activity.Current?.SetTag("rho.first_sequence", request.FirstSequence);
            await using var shard = scorer.OpenShard(reference, request, cancellation => NextBlockAsync(requests, cancellation));
            reached = request.FirstSequence;
            await responses.WriteAsync(new ScoreShardResponse { Opened = new ShardOpened { Reference = reference.Fingerprint } }, context.CancellationToken);

            await using var events = shard.RunAsync(stop.Token).GetAsyncEnumerator(CancellationToken.None);
            while (await NextAsync(events, () => responses.WriteAsync(new ScoreShardResponse { Waiting = Waiting(reference) }, context.CancellationToken), stop))
            {
                var ready = events.Current;
                if (ready.Wanted is { } wanted)
                {
                    await responses.WriteAsync(new ScoreShardResponse { SendTokens = wanted.ToMessage() }, context.CancellationToken);
                    continue;
                }

                if (started != 0) scorer.Metrics.FirstLossSeconds.Record(Stopwatch.GetElapsedTime(started).TotalSeconds);
                started = 0;
                foreach (var (first, count, scores) in ready.Scores.ToMessages(request.Grid.Length))
                {
                    stop.Token.ThrowIfCancellationRequested();
                    var firstToken = ready.FirstToken + first;
                    // A message is written whole or not at all: a write that the stopping service cancelled would end the call without its trailer.
                    await MeasuredAsync(responses.WriteAsync(
                        new ScoreShardResponse { Block = new LossBlock { FirstToken = firstToken, Scores = scores, Source = ready.FromCache ? LossSource.Cache : LossSource.Scored } },
                        context.CancellationToken));
                    reached = (firstToken + count) / request.Grid.Length;
                }
            }
        }
        catch (Exception e) when (Ends(e, context))
        {
            throw Stopping($"sequences from {reached} on were not sent", reached);
        }
    }

    public override async Task Score(IAsyncStreamReader<ScoreRequest> requests, IServerStreamWriter<ScoreResponse> responses, ServerCallContext context)
    {
        using var counted = scorer.OpenStream();
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, scorer.Draining);
        try
        {
            var open = await requests.MoveNext(stop.Token) ? requests.Current.Open : null;
            if (open is null) throw new RhoException("the first request of Score must be `open`");
            var format = open.Format.ToDomain();
            if (!Enum.IsDefined(open.TokenType)) throw new RhoException($"token_type {(int)open.TokenType} is not known; known are U16 (1), U32 (2)");
            var reference = scorer.Find(open.Reference, open.TokenizerFingerprint);
            reference.Check(format);
            var sequences = scorer.OpenSequences(reference, ClientOf(context), format);
            var reading = sequences.ReadAsync(cancellation => NextSequenceAsync(requests, open.TokenType, cancellation), stop.Token);
            try
            {
                await foreach (var result in sequences.Results.ReadAllAsync(stop.Token))
                {
                    foreach (var (first, _, scores) in result.Scores.ToMessages(result.Scores.Tokens))
                        await MeasuredAsync(responses.WriteAsync(new ScoreResponse { Id = result.Id, FirstToken = first, Scores = scores }, context.CancellationToken));
                    sequences.Sent(result);
                }
            }
            finally
            {
                // Whatever ended the writing ends the reading too, which ends the work in the queue.
                await stop.CancelAsync();
                await reading;
            }
        }
        catch (Exception e) when (Ends(e, context))
        {
            throw Stopping("sequences that were not answered were not scored", reached: null);
        }
    }

    private static string ClientOf(ServerCallContext context) => context.RequestHeaders.GetValue(ClientHeader) ?? context.Peer;

    private static async Task<Shards.TokenBlock?> NextBlockAsync(IAsyncStreamReader<ScoreShardRequest> requests, CancellationToken cancellation)
    {
        if (!await requests.MoveNext(cancellation)) return null;
        return (requests.Current.Tokens ?? throw new RhoException("only the first request of ScoreShard may be `open`; expected `tokens`")).ToDomain();
    }

    private static async Task<SequenceRequest?> NextSequenceAsync(IAsyncStreamReader<ScoreRequest> requests, TokenType type, CancellationToken cancellation)
    {
        if (!await requests.MoveNext(cancellation)) return null;
        return (requests.Current.Sequence ?? throw new RhoException("only the first request of Score may be `open`; expected `sequence`")).ToDomain(type);
    }

    private static Waiting Waiting(ServedReference reference) =>
        new() { QueuedTokens = reference.Admission.QueuedTokens, ExpectedMs = reference.Admission.ExpectedWait.TotalMilliseconds };

    /// <summary>The next event; until it comes, a heartbeat at intervals.</summary>
    private static async Task<bool> NextAsync(IAsyncEnumerator<ShardEvent> events, Func<Task> heartbeat, CancellationTokenSource stop)
    {
        var next = events.MoveNextAsync();
        if (next.IsCompleted) return await next;
        var moving = next.AsTask();
        while (true)
        {
            try
            {
                return await moving.WaitAsync(Heartbeat, CancellationToken.None);
            }
            catch (TimeoutException) when (!moving.IsCompleted)
            {
                try
                {
                    await heartbeat();
                }
                catch
                {
                    // The enumerator may only be disposed once it rests.
                    await stop.CancelAsync();
                    await ((Task)moving).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                    throw;
                }
            }
        }
    }

    private async Task MeasuredAsync(Task write)
    {
        if (write.IsCompletedSuccessfully) return;
        var start = Stopwatch.GetTimestamp();
        await write;
        scorer.Metrics.BackPressureSeconds.Add(Stopwatch.GetElapsedTime(start).TotalSeconds);
    }

    /// <summary>Whether a stream ends because the service stops, not because of its client or of what it asked.</summary>
    private bool Ends(Exception exception, ServerCallContext context) =>
        scorer.Draining.IsCancellationRequested && !context.CancellationToken.IsCancellationRequested
        && exception is OperationCanceledException or UnavailableException;

    private static RpcException Stopping(string what, long? reached) =>
        ErrorStatus.Stopping($"the scorer is stopping: {what}; go on with another replica", reached is { } sequence ? [("sequence_reached", sequence.ToString())] : []);
}

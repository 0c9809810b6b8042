using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Threading.Channels;
using Grpc.Core;
using Polly;
using Polly.Retry;
using Rho.Formats;
using Rho.Protocol.Scoring.V1;
using LossEncoding = Rho.Formats.LossEncoding;

namespace Rho.Client;

/// <summary>
/// Reference losses from one or many scorers. Each shard streams from the scorer that has the least to do; when that one dies,
/// freezes, fills up or stops, the stream goes on at another one with the first sequence that did not arrive. The losses are the
/// same whatever happened on the way. Safe for concurrent use; several shards may be scored at once.
/// </summary>
public sealed class ScorerClient : IAsyncDisposable
{
    private const int CoverageShards = 400;
    private static readonly TimeSpan FirstDelay = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan LongestDelay = TimeSpan.FromSeconds(5);
    private static readonly ResiliencePropertyKey<Progress> ProgressKey = new("rho.progress");

    private readonly ScorerClientOptions _options;
    private readonly Metadata _headers;
    private readonly Replicas _replicas;
    private readonly ResiliencePipeline _retry;
    private readonly SemaphoreSlim _describing = new(1);
    private ReferenceDescription? _reference;

    /// <exception cref="RhoException">An option is wrong.</exception>
    public ScorerClient(ScorerClientOptions options)
    {
        options.Validate();
        _options = options;
        _headers = new Metadata { { "rho-client", Guid.NewGuid().ToString("N") } };
        if (options.ApiKey is not null) _headers.Add("authorization", $"Bearer {options.ApiKey}");
        _replicas = new Replicas(options, _headers);
        _retry = new ResiliencePipelineBuilder()
            .AddRetry(new RetryStrategyOptions
            {
                ShouldHandle = arguments => ValueTask.FromResult(
                    arguments.Outcome.Exception is ReplicaFailedException failure && ProgressOf(arguments.Context).MayGoOn(failure)),
                MaxRetryAttempts = int.MaxValue,
                BackoffType = DelayBackoffType.Exponential,
                UseJitter = true,
                Delay = FirstDelay,
                MaxDelay = LongestDelay,
                DelayGenerator = static arguments => ValueTask.FromResult((arguments.Outcome.Exception as ReplicaFailedException)?.RetryAfter),
                OnRetry = static _ =>
                {
                    ClientMetrics.Retries.Add(1);
                    return ValueTask.CompletedTask;
                },
            })
            .Build();
    }

    /// <summary>Describes the reference that all scorers of this client serve. Asked once; later calls return the same.</summary>
    /// <exception cref="UnavailableException">No scorer answers within the connect timeout.</exception>
    /// <exception cref="MismatchException">The reference or its tokenizer is not the one that the options name; nothing was scored.</exception>
    public async Task<ReferenceDescription> DescribeAsync(CancellationToken ct = default)
    {
        if (_reference is { } known) return known;
        await _describing.WaitAsync(ct).ConfigureAwait(false);
        try
        {
            if (_reference is null)
            {
                await RetryAsync(_options.ConnectTimeout, (progress, token) => RunOnOneAsync(
                    progress, tokens: 0,
                    (chosen, _) =>
                    {
                        _reference = chosen.Replica.Agreed;
                        return Task.CompletedTask;
                    }, token), ct).ConfigureAwait(false);
            }

            return _reference!;
        }
        finally
        {
            _describing.Release();
        }
    }

    /// <summary>Losses of a shard, in order, from a sequence on. Blocks hold whole sequences and are fetched ahead of the reader.</summary>
    /// <param name="shard">Stays open until the enumeration ends.</param>
    /// <param name="documentsSeeEachOther">Whether a token is predicted from earlier documents of its sequence too.</param>
    /// <exception cref="UnavailableException">No scorer made progress for the budget.</exception>
    /// <exception cref="MismatchException">A scorer serves another reference, or one with another tokenizer.</exception>
    /// <exception cref="CorruptDataException">The shard's tokens do not have its hash.</exception>
    /// <exception cref="RhoException">The scorer refuses the shard, such as for sequences that are too long; the message says why.</exception>
    public async IAsyncEnumerable<LossBlock> ScoreShardAsync(
        TokenShard shard, bool documentsSeeEachOther, long firstSequence = 0, [EnumeratorCancellation] CancellationToken ct = default)
    {
        await foreach (var block in ScoreShardEncodedAsync(shard, documentsSeeEachOther, firstSequence, endSequence: null, ct).ConfigureAwait(false))
        {
            var losses = new float[block.Sequences * shard.Length];
            LossCodec.Decode(block.Losses.Span, _options.Encoding, losses);
            yield return new LossBlock(block.FirstSequence, block.Sequences, shard.Length, losses)
            {
                Entropies = DecodeF16(block.Entropies.Span),
                TopIds = MemoryMarshal.Cast<byte, int>(block.TopIds.Span).ToArray(),
                TopLogProbabilities = DecodeF16(block.TopLogProbabilities.Span),
            };
        }
    }

    /// <summary>As <see cref="ScoreShardAsync"/>, with the losses as they are stored and sent, up to before <paramref name="endSequence"/> (null: to the shard's end).</summary>
    public async IAsyncEnumerable<EncodedLossBlock> ScoreShardEncodedAsync(
        TokenShard shard, bool documentsSeeEachOther, long firstSequence = 0, long? endSequence = null, [EnumeratorCancellation] CancellationToken ct = default)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(firstSequence);
        var end = endSequence ?? shard.Sequences;
        ArgumentOutOfRangeException.ThrowIfGreaterThan(firstSequence, end);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(end, shard.Sequences);
        var reference = await DescribeAsync(ct).ConfigureAwait(false);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(ct);
        var blocks = Channel.CreateBounded<EncodedLossBlock>(new BoundedChannelOptions(_options.PrefetchBlocks) { SingleReader = true, SingleWriter = true });
        var identity = ShardIdentity.Of(shard, documentsSeeEachOther);
        var reading = ReadShardAsync(shard, identity, reference, firstSequence, end, blocks.Writer, stop.Token);
        try
        {
            await foreach (var block in blocks.Reader.ReadAllAsync(ct).ConfigureAwait(false)) yield return block;
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await reading.ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Losses of sequences made on the fly, in the order in which they get ready. Sequences are read from
    /// <paramref name="sequences"/> as the scorer takes them; those without an answer are sent again when a scorer fails.
    /// </summary>
    public async IAsyncEnumerable<SequenceLosses> ScoreAsync(IAsyncEnumerable<SequenceTokens> sequences, [EnumeratorCancellation] CancellationToken ct = default)
    {
        var reference = await DescribeAsync(ct).ConfigureAwait(false);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(ct);
        var results = Channel.CreateBounded<SequenceLosses>(new BoundedChannelOptions(_options.PrefetchBlocks) { SingleReader = true, SingleWriter = true });
        var exchange = new SequenceExchange(sequences, _options, reference, results.Writer);
        var reading = CompleteAsync(results.Writer, async () =>
        {
            await using (exchange.ConfigureAwait(false))
            {
                while (!exchange.IsDone)
                    await RetryAsync(_options.Budget, (progress, token) => RunOnOneAsync(progress, tokens: 0, (chosen, t) => exchange.RunAsync(chosen.Replica, _headers, progress, t), token), stop.Token).ConfigureAwait(false);
            }
        });
        try
        {
            await foreach (var result in results.Reader.ReadAllAsync(ct).ConfigureAwait(false)) yield return result;
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await reading.ConfigureAwait(false);
        }
    }

    /// <summary>Limits and load of each scorer that answers.</summary>
    public async Task<IReadOnlyList<ScorerInfo>> InfoAsync(CancellationToken ct = default)
    {
        await DescribeAsync(ct).ConfigureAwait(false);
        var all = await _replicas.AllAsync(ct).ConfigureAwait(false);
        var infos = await Task.WhenAll(all.Select(async replica =>
        {
            try
            {
                var info = await replica.Client.InfoAsync(new InfoRequest(), _headers, DateTime.UtcNow + _options.HedgeAfter, ct).ConfigureAwait(false);
                return new ScorerInfo(
                    replica.Address, info.Version, info.QueuedTokens, info.Streams, info.TokensPerSecond, TimeSpan.FromMilliseconds(info.ExpectedWaitMs),
                    info.MaxSequenceLength, info.MaxShardTokens, info.MaxQueuedTokens, info.MaxStreams, info.Cache, info.CacheAvailable, info.Draining);
            }
            catch (RpcException)
            {
                ct.ThrowIfCancellationRequested();
                return null;
            }
        })).ConfigureAwait(false);
        return [.. infos.OfType<ScorerInfo>()];
    }

    /// <summary>How much of each of a corpus' shards the scorers have cached, in the corpus' order.</summary>
    public async Task<IReadOnlyList<ShardCoverage>> CoverageAsync(Corpus corpus, CancellationToken ct = default)
    {
        var reference = await DescribeAsync(ct).ConfigureAwait(false);
        var coverage = new List<ShardCoverage>();
        for (var first = 0; first < corpus.Shards.Count; first += CoverageShards)
        {
            var request = new CoverageRequest { Reference = reference.Fingerprint, Format = FormatOf(_options) };
            for (var i = first; i < Math.Min(first + CoverageShards, corpus.Shards.Count); i++)
            {
                using var shard = corpus.OpenShard(i);
                request.Shards.Add(ShardIdentity.Of(shard, corpus.DocumentsSeeEachOther).Message);
            }

            await RetryAsync(_options.Budget, (progress, token) => RunOnOneAsync(progress, tokens: 0, async (chosen, t) =>
            {
                var response = await chosen.Replica.Client.CoverageAsync(request, _headers, DateTime.UtcNow + _options.StallTimeout, t).ConfigureAwait(false);
                coverage.AddRange(response.Shards.Zip(request.Shards, (answer, shard) => new ShardCoverage(
                    answer.State switch { CoverageState.Cached => ShardState.Cached, CoverageState.InWork => ShardState.InWork, _ => ShardState.Missing },
                    answer.CachedSequences, shard.Sequences, TimeSpan.FromMilliseconds(answer.TimeLeftMs))));
            }, token), ct).ConfigureAwait(false);
        }

        return coverage;
    }

    /// <summary>Scorers known now: as many shards as this, or a few more, keep all of them busy.</summary>
    public async Task<int> CountScorersAsync(CancellationToken ct = default)
    {
        await DescribeAsync(ct).ConfigureAwait(false);
        return (await _replicas.AllAsync(ct).ConfigureAwait(false)).Count;
    }

    public LossEncoding Encoding => _options.Encoding;

    public bool Entropy => _options.Entropy;

    public int TopK => _options.TopK;

    public async ValueTask DisposeAsync()
    {
        await _replicas.DisposeAsync().ConfigureAwait(false);
        _describing.Dispose();
    }

    internal static ScoreFormat FormatOf(ScorerClientOptions options) => new()
    {
        Encoding = options.Encoding switch
        {
            LossEncoding.F16 => Protocol.Scoring.V1.LossEncoding.F16,
            LossEncoding.F32 => Protocol.Scoring.V1.LossEncoding.F32,
            _ => Protocol.Scoring.V1.LossEncoding.Log8,
        },
        Entropy = options.Entropy,
        TopK = options.TopK,
    };

    private static float[] DecodeF16(ReadOnlySpan<byte> bytes)
    {
        var values = new float[bytes.Length / sizeof(ushort)];
        LossCodec.Decode(bytes, LossEncoding.F16, values);
        return values;
    }

    private static Progress ProgressOf(ResilienceContext context) => context.Properties.GetValue(ProgressKey, null!);

    private static async Task CompleteAsync<T>(ChannelWriter<T> writer, Func<Task> produce)
    {
        try
        {
            await produce().ConfigureAwait(false);
            writer.Complete();
        }
        catch (Exception e)
        {
            writer.Complete(e);
        }
    }

    /// <summary>Runs an attempt until one succeeds; gives up when none made progress for the budget.</summary>
    private async Task RetryAsync(TimeSpan budget, Func<Progress, CancellationToken, Task> attempt, CancellationToken cancellation)
    {
        var progress = new Progress(budget);
        var context = ResilienceContextPool.Shared.Get(cancellation);
        context.Properties.Set(ProgressKey, progress);
        try
        {
            await _retry.ExecuteAsync(static async (c, state) => await state.attempt(state.progress, c.CancellationToken).ConfigureAwait(false), context, (attempt, progress)).ConfigureAwait(false);
        }
        catch (ReplicaFailedException e)
        {
            cancellation.ThrowIfCancellationRequested();
            throw new UnavailableException($"no scorer of {_replicas.Names} made progress for {progress.Idle.TotalSeconds:0} s; last: {e.Message}");
        }
        finally
        {
            ResilienceContextPool.Shared.Return(context);
        }
    }

    /// <summary>
    /// Lets one replica do something: chosen by load, agreed with, its circuit closed. An attempt that got somewhere before its
    /// replica failed returns, so that the next one starts with fresh patience.
    /// </summary>
    private async Task RunOnOneAsync(Progress progress, long tokens, Func<Replica.Reservation, CancellationToken, Task> work, CancellationToken cancellation)
    {
        var before = progress.Steps;
        using var chosen = await _replicas.ChooseAsync(progress.LastFailed, tokens, cancellation).ConfigureAwait(false);
        var replica = chosen.Replica;
        try
        {
            await replica.Circuit.ExecuteAsync(
                async token =>
                {
                    await AgreeAsync(replica, token).ConfigureAwait(false);
                    await TranslateAsync(replica, () => work(chosen, token), token).ConfigureAwait(false);
                }, cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (!cancellation.IsCancellationRequested && ScorerErrors.Translate(replica.Address, e, cancellation) is ReplicaFailedException failure)
        {
            progress.LastFailed = replica;
            replica.MarkFailed();
            ClientMetrics.Failures.Add(1, new KeyValuePair<string, object?>("replica", replica.Address));
            if (progress.Steps == before) ExceptionDispatchInfo.Throw(failure);
        }
    }

    private static async Task TranslateAsync(Replica replica, Func<Task> call, CancellationToken cancellation)
    {
        try
        {
            await call().ConfigureAwait(false);
        }
        catch (Exception e) when (e is RpcException or TimeoutException or OperationCanceledException)
        {
            throw ScorerErrors.Translate(replica.Address, e, cancellation);
        }
    }

    /// <summary>On first use of a replica: what it serves is what this client wants and what its other replicas serve.</summary>
    private async Task<ReferenceDescription> AgreeAsync(Replica replica, CancellationToken cancellation)
    {
        if (replica.Agreed is { } agreed) return agreed;
        DescribeResponse response = null!;
        await TranslateAsync(replica, async () => response = await replica.Client.DescribeAsync(
            new DescribeRequest
            {
                Reference = _reference?.Fingerprint ?? _options.Reference ?? "",
                TokenizerFingerprint = _options.TokenizerFingerprint ?? "",
            },
            _headers, DateTime.UtcNow + _options.ConnectTimeout, cancellation).ConfigureAwait(false), cancellation).ConfigureAwait(false);
        var description = new ReferenceDescription(
            response.Reference, response.TokenizerFingerprint, response.VocabularySize, response.ContextLength, response.Description,
            [.. response.Encodings.Select(encoding => encoding switch
            {
                Protocol.Scoring.V1.LossEncoding.F32 => LossEncoding.F32,
                Protocol.Scoring.V1.LossEncoding.Log8 => LossEncoding.Log8,
                _ => LossEncoding.F16,
            })],
            MemoryMarshal.Cast<byte, float>(response.ProbeLosses.Span).ToArray(), response.ChunkTokens, response.LeaseChunks, response.MaxTopK);
        if (_reference is { } other && !ProbesAgree(other.ProbeLosses, description.ProbeLosses))
        {
            throw new MismatchException(
                $"scorer {replica.Address} claims reference {description.Fingerprint} but computes other losses than the scorers before it (probe batch differs): it or they are broken; nothing of it was used");
        }

        replica.Agreed = description;
        return description;
    }

    /// <summary>Whether probe losses can come from one model, on machines that may round differently: within 0.05 nats + 2 %.</summary>
    private static bool ProbesAgree(IReadOnlyList<float> first, IReadOnlyList<float> second) =>
        first.Count == second.Count && first.Zip(second).All(pair =>
            float.IsNaN(pair.First) ? float.IsNaN(pair.Second) : MathF.Abs(pair.First - pair.Second) <= 0.05f + 0.02f * MathF.Abs(pair.First));

    private Task ReadShardAsync(
        TokenShard shard, ShardIdentity identity, ReferenceDescription reference, long firstSequence, long end, ChannelWriter<EncodedLossBlock> writer, CancellationToken cancellation) =>
        CompleteAsync(writer, async () =>
        {
            var next = firstSequence;
            while (next < end)
            {
                await RetryAsync(_options.Budget, (progress, token) => RunOnOneAsync(progress, (end - next) * shard.Length, async (chosen, t) =>
                {
                    using var activity = ClientMetrics.Activities.StartActivity("score shard", ActivityKind.Client);
                    activity?.SetTag("rho.shard", identity.Message.Sha256);
                    activity?.SetTag("rho.first_sequence", next);
                    var (replica, call) = await OpenHedgedAsync(chosen.Replica, OpenOf(identity, reference, next, end), t).ConfigureAwait(false);
                    await using var leg = new ShardLeg(replica.Address, call, shard, identity, _options);
                    await foreach (var block in leg.ReadAsync(next, end, t).ConfigureAwait(false))
                    {
                        await writer.WriteAsync(block, t).ConfigureAwait(false);
                        next = block.FirstSequence + block.Sequences;
                        chosen.Done((long)block.Sequences * shard.Length);
                        progress.Step();
                        if (leg.Age > _options.StreamLifetime && next < end && await ShouldMoveAsync(replica, t).ConfigureAwait(false)) return;
                    }
                }, token), cancellation).ConfigureAwait(false);
            }
        });

    private async Task<bool> ShouldMoveAsync(Replica replica, CancellationToken cancellation)
    {
        using var best = await _replicas.ChooseAsync(except: null, tokens: 0, cancellation).ConfigureAwait(false);
        return best.Replica != replica && best.Replica.Load < replica.Load / 2;
    }

    private ScoreShardRequest OpenOf(ShardIdentity identity, ReferenceDescription reference, long firstSequence, long end) => new()
    {
        Open = new ShardOpen
        {
            Reference = reference.Fingerprint,
            TokenizerFingerprint = _options.TokenizerFingerprint ?? "",
            Shard = identity.Message,
            FirstSequence = firstSequence,
            EndSequence = end,
            Format = FormatOf(_options),
        },
    };

    /// <summary>Opens a stream; where the replica stays silent, on another one too, and takes the first that answers.</summary>
    private async Task<(Replica Replica, AsyncDuplexStreamingCall<ScoreShardRequest, ScoreShardResponse> Call)> OpenHedgedAsync(Replica first, ScoreShardRequest open, CancellationToken cancellation)
    {
        using var lost = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var opening = new List<Task<(Replica, AsyncDuplexStreamingCall<ScoreShardRequest, ScoreShardResponse>)>> { OpenAsync(first, open, lost.Token) };
        try
        {
            var silence = Task.Delay(_options.HedgeAfter, lost.Token);
            if (await Task.WhenAny(opening[0], silence).ConfigureAwait(false) == silence && !cancellation.IsCancellationRequested)
            {
                using var second = await _replicas.ChooseAsync(except: first, tokens: 0, cancellation).ConfigureAwait(false);
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
                if (done.IsCompletedSuccessfully || opening.Count == 0) return await done.ConfigureAwait(false);
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
                        if (task.IsCompletedSuccessfully) task.Result.Item2.Dispose();
                        else _ = task.Exception;
                    }, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
            }
        }
    }

    private async Task<(Replica, AsyncDuplexStreamingCall<ScoreShardRequest, ScoreShardResponse>)> OpenAsync(Replica replica, ScoreShardRequest open, CancellationToken cancellation)
    {
        await AgreeAsync(replica, cancellation).ConfigureAwait(false);
        var call = replica.Client.ScoreShard(_headers, cancellationToken: CancellationToken.None);
        try
        {
            using var silence = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            silence.CancelAfter(_options.StallTimeout);
            using var ending = silence.Token.UnsafeRegister(static state => ((IDisposable)state!).Dispose(), call);
            try
            {
                await call.RequestStream.WriteAsync(open, silence.Token).ConfigureAwait(false);
                if (!await call.ResponseStream.MoveNext(silence.Token).ConfigureAwait(false) || call.ResponseStream.Current.KindCase != ScoreShardResponse.KindOneofCase.Opened)
                    throw new RhoException($"{replica.Address} answered ScoreShard without `opened`: it is no scorer of this version");
            }
            catch (Exception e) when (silence.IsCancellationRequested && !cancellation.IsCancellationRequested)
            {
                throw new TimeoutException($"nothing came for {_options.StallTimeout.TotalSeconds:0} s", e);
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

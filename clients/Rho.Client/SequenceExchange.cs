using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Threading.Channels;
using Google.Protobuf;
using Grpc.Core;
using Rho.Formats;
using Rho.Protocol.Scoring.V1;

namespace Rho.Client;

/// <summary>
/// Sequences on their way to scorers and losses on their way back, over as many streams one after another as it takes: what was
/// sent on a stream that broke and not answered goes out first on the next one.
/// </summary>
internal sealed class SequenceExchange(
    IAsyncEnumerable<SequenceTokens> sequences, ScorerClientOptions options, ReferenceDescription reference, ChannelWriter<SequenceLosses> results) : IAsyncDisposable
{
    private const int MaxOpenTokens = 262_144;

    private readonly CancellationTokenSource _stop = new();
    private readonly ConcurrentDictionary<ulong, SequenceTokens> _unanswered = new();
    private readonly Dictionary<ulong, Arriving> _partial = [];
    private IAsyncEnumerator<SequenceTokens>? _source;
    private Task<bool>? _moving;
    private volatile bool _sourceEnded;
    private int _openTokens;
    private TaskCompletionSource _room = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Whether all sequences of the source are answered.</summary>
    public bool IsDone => _sourceEnded && _unanswered.IsEmpty;

    /// <summary>Goes on over one stream until it ends, or all is done.</summary>
    public async Task RunAsync(Attempt attempt, Metadata headers, CancellationToken cancellation)
    {
        var replica = attempt.Replica;
        _partial.Clear();
        using var activity = ClientMetrics.Activities.StartActivity("score sequences", ActivityKind.Client);
        using var call = replica.Client.Score(headers, cancellationToken: CancellationToken.None);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        using var ending = stop.Token.UnsafeRegister(static state => ((IDisposable)state!).Dispose(), call);
        Exception? sourceFailure = null;
        var sending = SendAsync();
        try
        {
            while (await call.ResponseStream.MoveNext(stop.Token).ConfigureAwait(false))
            {
                if (Collect(replica, call.ResponseStream.Current) is not { } done) continue;
                await results.WriteAsync(done, cancellation).ConfigureAwait(false);
                attempt.Step();
                ClientMetrics.Tokens.Add(done.Losses.Length, new KeyValuePair<string, object?>("source", "scored"));
            }

        }
        catch (Exception) when (sourceFailure is not null)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(sourceFailure);
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await sending.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        if (!IsDone) throw new ReplicaFailedException(replica.Address, "ended the stream before all sequences were answered", retryAfter: null, isInternal: true, new InvalidDataException());

        async Task SendAsync()
        {
            try
            {
                await SendAllAsync(call.RequestStream, stop.Token).ConfigureAwait(false);
            }
            catch (Exception e) when (e is not (RpcException or InvalidOperationException or OperationCanceledException))
            {
                // Not the scorer but the caller's source failed; what the scorer has to say shows at the reading end.
                sourceFailure = e;
                await stop.CancelAsync().ConfigureAwait(false);
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        if (_moving is not null) await ((Task)_moving).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_source is not null) await _source.DisposeAsync().ConfigureAwait(false);
        _stop.Dispose();
    }

    private async Task SendAllAsync(IClientStreamWriter<ScoreRequest> requests, CancellationToken cancellation)
    {
        await requests.SendAsync(
            new ScoreRequest
            {
                Open = new ScoreOpen
                {
                    Reference = reference.Fingerprint,
                    TokenizerFingerprint = options.TokenizerFingerprint ?? "",
                    Format = options.Format.ToWire(),
                    TokenType = TokenType.U32,
                },
            }, cancellation).ConfigureAwait(false);
        foreach (var again in _unanswered.Values) await WriteAsync(requests, again, cancellation).ConfigureAwait(false);
        while (!_sourceEnded)
        {
            // The source outlives streams: what it is asked for on one may come on the next.
            _source ??= sequences.GetAsyncEnumerator(_stop.Token);
            _moving ??= _source.MoveNextAsync().AsTask();
            if (!await _moving.WaitAsync(cancellation).ConfigureAwait(false))
            {
                _sourceEnded = true;
                break;
            }

            var sequence = _source.Current;
            while (Volatile.Read(ref _openTokens) is > 0 and var open && open + sequence.Tokens.Length > MaxOpenTokens)
            {
                var room = Volatile.Read(ref _room);
                if (Volatile.Read(ref _openTokens) == open) await room.Task.WaitAsync(cancellation).ConfigureAwait(false);
            }

            if (!_unanswered.TryAdd(sequence.Id, sequence)) throw new RhoException($"sequence id {sequence.Id} waits for its losses already; ids must be unique");
            _moving = null;
            Interlocked.Add(ref _openTokens, sequence.Tokens.Length);
            await WriteAsync(requests, sequence, cancellation).ConfigureAwait(false);
        }

        await requests.CompleteAsync().ConfigureAwait(false);
    }

    private static Task WriteAsync(IClientStreamWriter<ScoreRequest> requests, SequenceTokens sequence, CancellationToken cancellation)
    {
        var message = new Sequence { Id = sequence.Id, Tokens = ByteString.CopyFrom(MemoryMarshal.AsBytes(sequence.Tokens.AsSpan())) };
        if (sequence.Documents is { } documents)
        {
            if (documents.Length != sequence.Tokens.Length)
                throw new RhoException($"sequence {sequence.Id} has {sequence.Tokens.Length} tokens and {documents.Length} document numbers; expected as many");
            var layout = new byte[documents.Length];
            ShardIdentity.ToLayout(documents, documentsSeeEachOther: false, layout);
            message.Layout = UnsafeByteOperations.UnsafeWrap(layout);
        }

        return requests.SendAsync(new ScoreRequest { Sequence = message }, cancellation);
    }

    /// <summary>The sequence that a message completes, if it does.</summary>
    private SequenceLosses? Collect(Replica replica, ScoreResponse response)
    {
        if (!_unanswered.TryGetValue(response.Id, out var sequence))
            throw new ReplicaFailedException(replica.Address, $"answered sequence {response.Id}, which was not asked for", retryAfter: null, isInternal: true, new InvalidDataException());
        if (!_partial.TryGetValue(response.Id, out var arriving)) _partial.Add(response.Id, arriving = new Arriving(response.Id, sequence.Tokens.Length, options));
        if (!arriving.Take(response.FirstToken, response.Scores.ToDomain(options.Format, replica.Address)))
            throw new ReplicaFailedException(replica.Address, $"sent scores of token {response.FirstToken} of sequence {response.Id} where {arriving.Filled} was next", retryAfter: null, isInternal: true, new InvalidDataException());
        if (arriving.Filled < sequence.Tokens.Length) return null;
        _partial.Remove(response.Id);
        _unanswered.TryRemove(response.Id, out _);
        Interlocked.Add(ref _openTokens, -sequence.Tokens.Length);
        Interlocked.Exchange(ref _room, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).TrySetResult();
        return arriving.Result;
    }

    /// <summary>A sequence's scores, in one message or several.</summary>
    private sealed class Arriving(ulong id, int length, ScorerClientOptions options)
    {
        public int Filled { get; private set; }

        public SequenceLosses Result { get; } = new(id, TokenScores.Room(length, options.Entropy, options.TopK));

        /// <summary>False where the scores are not those of the next tokens.</summary>
        public bool Take(int first, EncodedScores scores)
        {
            if (scores.Tokens == 0 || first != Filled || scores.Tokens > length - Filled) return false;
            scores.DecodeTo(Result.Scores, first);
            Filled += scores.Tokens;
            return true;
        }
    }
}

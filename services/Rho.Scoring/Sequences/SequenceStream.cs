using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using System.Threading.Channels;
using Rho.Formats;
using Rho.Scoring.Shards;
using Rho.Scoring.Work;

namespace Rho.Scoring.Sequences;

/// <summary>A sequence of a client's own batch.</summary>
/// <param name="Id">Comes back with the losses.</param>
/// <param name="Tokens">[length] token ids.</param>
/// <param name="Layout">[length] see <see cref="TokenLayout"/>, or empty: all 0.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct SequenceRequest(ulong Id, int[] Tokens, ReadOnlyMemory<byte> Layout);

[StructLayout(LayoutKind.Auto)]
public readonly record struct SequenceScores(ulong Id, EncodedScores Scores);

/// <summary>
/// Single sequences of one client, scored in batches with other clients' ones and answered as they get ready. A client is read
/// only while few of its tokens are in work, so that memory does not grow with what it sends.
/// </summary>
internal sealed class SequenceStream(ServedReference reference, string client, ScoreFormat format, int maxLength)
{
    /// <summary>Tokens of one stream in work or waiting to be sent: enough to fill some batches.</summary>
    private const int WindowTokens = 131_072;

    private readonly Channel<SequenceScores> _results = Channel.CreateUnbounded<SequenceScores>(new UnboundedChannelOptions { SingleReader = true });
    private readonly ConcurrentDictionary<ulong, bool> _open = new();
    private readonly TokenWindow _window = new(WindowTokens);
    private Exception? _failure;

    /// <summary>Losses in the order in which they get ready; ends when the client's last sequence is answered.</summary>
    public ChannelReader<SequenceScores> Results => _results.Reader;

    /// <summary>Reads the client's sequences until it ends them. A sequence that cannot be scored ends the stream with what is wrong.</summary>
    public async Task ReadAsync(Func<CancellationToken, Task<SequenceRequest?>> next, CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var running = new List<Task>();
        Exception? end = null;
        try
        {
            while (await next(stop.Token) is { } request)
            {
                Check(request);
                if (!_open.TryAdd(request.Id, true)) throw new RhoException($"sequence id {request.Id} is in work already; ids must be unique among a stream's open sequences");
                await _window.TakeAsync(request.Tokens.Length, stop.Token);
                running.RemoveAll(task => task.IsCompleted);
                running.Add(ScoreAsync(request, stop));
            }

            await Task.WhenAll(running);
        }
        catch (Exception e)
        {
            end = e;
            await stop.CancelAsync();
        }

        await Task.WhenAll(running).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _results.Writer.TryComplete(_failure ?? end);
    }

    /// <summary>Says that a result was sent, which makes room for more of the client's sequences.</summary>
    public void Sent(in SequenceScores scores)
    {
        _open.TryRemove(scores.Id, out _);
        _window.Return(scores.Scores.Tokens);
    }

    private async Task ScoreAsync(SequenceRequest request, CancellationTokenSource stop)
    {
        try
        {
            var count = request.Tokens.Length;
            using var admitted = reference.Admission.Admit(count);
            var work = new ScoringWork
            {
                Client = client,
                Tokens = request.Tokens,
                Sequences = 1,
                Length = count,
                Documents = Documents(request.Layout.Span),
                MayShareBatch = true,
                Format = format,
                Cancellation = stop.Token,
            };
            await reference.Loop.ScoreAsync(work);
            _results.Writer.TryWrite(new SequenceScores(request.Id, new EncodedScores(format, work.Encode())));
        }
        catch (Exception e)
        {
            // The first failure is the stream's; those that follow from stopping the others are not.
            Interlocked.CompareExchange(ref _failure, e, comparand: null);
            await stop.CancelAsync();
        }
    }

    private static int[]? Documents(ReadOnlySpan<byte> layout)
    {
        if (layout.IndexOfAnyExcept(TokenLayout.GoesOn) < 0) return null;
        var documents = new int[layout.Length];
        TokenLayout.ToDocuments(layout, documents);
        return documents;
    }

    private void Check(in SequenceRequest request)
    {
        var (id, tokens) = (request.Id, request.Tokens);
        if (tokens.Length == 0) throw new RhoException($"sequence {id} has no tokens");
        if (tokens.Length > maxLength) throw new RhoException($"sequence {id} has {tokens.Length} tokens; this scorer takes at most {maxLength}");
        if (tokens.AsSpan().IndexOfAnyExceptInRange(0, reference.VocabularySize - 1) is >= 0 and var at)
            throw new RhoException($"token id {(uint)tokens[at]} in sequence {id} at position {at} is not in the reference's vocabulary of {reference.VocabularySize}");
        if (request.Layout.Length != 0 && request.Layout.Length != tokens.Length)
            throw new RhoException($"sequence {id} has {tokens.Length} tokens and {request.Layout.Length} layout bytes; expected as many, or none");
        if (TokenLayout.FirstInvalid(request.Layout.Span, 0, tokens.Length) is >= 0 and var wrong)
            throw new RhoException($"layout byte {request.Layout.Span[wrong]} of sequence {id} at position {wrong} is not possible there");
    }

    /// <summary>A count of tokens that may be out at a time. A sequence larger than the window passes when it is alone.</summary>
    private sealed class TokenWindow(int size)
    {
        private readonly Lock _gate = new();
        private int _out;
        private TaskCompletionSource? _waiting;

        public async Task TakeAsync(int count, CancellationToken cancellation)
        {
            while (true)
            {
                Task waiting;
                lock (_gate)
                {
                    if (_out == 0 || _out + count <= size)
                    {
                        _out += count;
                        return;
                    }

                    waiting = (_waiting ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).Task;
                }

                await waiting.WaitAsync(cancellation);
            }
        }

        public void Return(int count)
        {
            lock (_gate)
            {
                _out -= count;
                _waiting?.TrySetResult();
                _waiting = null;
            }
        }
    }
}

using System.Diagnostics;
using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.Model;

namespace Rho.Scoring.Work;

/// <summary>Told of work as it comes and goes, such as to know whether the service gets on.</summary>
internal interface IWorkWatch
{
    void Added();

    void Completed();

    /// <summary>Work went without being done: its client has gone, or it failed.</summary>
    void Dropped();
}

/// <summary>
/// The one thread that uses a model. Work comes from any thread into a fair queue and leaves it batch by batch; work whose
/// client has gone is taken out of the queue, and stopped where the model can be stopped.
/// </summary>
internal sealed class ModelLoop : IDisposable
{
    private readonly IReferenceModel _model;
    private readonly int _batchTokens;
    private readonly ScoringMetrics _metrics;
    private readonly IWorkWatch? _watch;
    private readonly object _gate = new();
    private readonly FairQueue _queue = new();
    private readonly CancellationTokenSource _stop = new();
    private readonly Thread _thread;
    private bool _working;
    private long _lastBatch = Stopwatch.GetTimestamp();
    private double _tokensPerSecond;

    /// <param name="batchTokens">Token budget of a batch. Sequences of different lengths lie in it one after another, none padded.</param>
    public ModelLoop(IReferenceModel model, int batchTokens, ScoringMetrics metrics, IWorkWatch? watch = null)
    {
        _watch = watch;
        _model = model;
        _batchTokens = batchTokens;
        _metrics = metrics;
        _thread = new Thread(Run) { IsBackground = true, Name = "rho-scoring" };
        _thread.Start();
    }

    public LoopState State
    {
        get
        {
            lock (_gate)
            {
                return new LoopState(_tokensPerSecond, _working || _queue.Count > 0, Stopwatch.GetElapsedTime(_lastBatch));
            }
        }
    }

    /// <summary>Queues work; its task completes when its losses are there.</summary>
    public Task ScoreAsync(ScoringWork work)
    {
        lock (_gate)
        {
            if (_stop.IsCancellationRequested)
            {
                work.Fail(Stopping());
                return work.Completion;
            }

            if (!_working && _queue.Count == 0) _lastBatch = Stopwatch.GetTimestamp();
            _queue.Enqueue(work);
            _watch?.Added();
            Monitor.Pulse(_gate);
        }

        if (work.Cancellation.CanBeCanceled)
        {
            var registration = work.Cancellation.UnsafeRegister(static state => ((Action)state!)(), () => Cancel(work));
            _ = work.Completion.ContinueWith(
                static (_, state) => ((CancellationTokenRegistration)state!).Unregister(), registration, CancellationToken.None,
                TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        }

        return work.Completion;
    }

    /// <summary>Stops the batch in work; it and what is queued fail as unavailable.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _stop.Cancel();
            Monitor.Pulse(_gate);
        }

        _thread.Join();
        _stop.Dispose();
    }

    private void Cancel(ScoringWork work)
    {
        bool removed;
        lock (_gate)
        {
            removed = _queue.Remove(work);
        }

        if (removed) Drop(work, new OperationCanceledException());
    }

    private void Run()
    {
        while (Take() is { } batch) ScoreBatch(batch);

        lock (_gate)
        {
            while (_queue.Dequeue() is { } left) Drop(left, Stopping());
        }
    }

    /// <summary>The next batch: the next work with what else fits the budget, the longest first; null when the loop is to end.</summary>
    private List<ScoringWork>? Take()
    {
        lock (_gate)
        {
            _working = false;
            while (true)
            {
                if (_stop.IsCancellationRequested) return null;
                if (_queue.Dequeue() is { } first)
                {
                    _working = true;
                    List<ScoringWork> works = [first];
                    if (!first.MayShareBatch) return works;
                    var left = _batchTokens - first.Count;
                    while (left > 0 && _queue.Dequeue(first, left) is { } next)
                    {
                        works.Add(next);
                        left -= next.Count;
                    }

                    works.Sort((a, b) => b.Length.CompareTo(a.Length));
                    return works;
                }

                Monitor.Wait(_gate);
            }
        }
    }

    private void ScoreBatch(List<ScoringWork> batch)
    {
        foreach (var gone in batch.Where(work => work.Cancellation.IsCancellationRequested)) Drop(gone, new OperationCanceledException());
        batch.RemoveAll(work => work.Completion.IsCompleted);
        if (batch.Count == 0) return;
        try
        {
            if (batch.Count == 1) ScoreAlone(batch[0]);
            else ScoreTogether(batch);
            foreach (var work in batch)
            {
                _watch?.Completed();
                work.Complete();
            }
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            batch.ForEach(work => Drop(work, Stopping()));
        }
        catch (Exception) when (batch.Count > 1)
        {
            // Whatever one of them did to the batch, it shall not do to the others.
            foreach (var work in batch) ScoreBatch([work]);
        }
        catch (Exception e)
        {
            // The loop outlives any failure of the model; the failure goes to who asked.
            Drop(batch[0], e);
        }
    }

    private void Drop(ScoringWork work, Exception reason)
    {
        _watch?.Dropped();
        work.Fail(reason);
    }

    private void ScoreAlone(ScoringWork work)
    {
        using var cancellation = CancellationTokenSource.CreateLinkedTokenSource(work.Cancellation, _stop.Token);
        var lengths = new int[work.Sequences];
        Array.Fill(lengths, work.Length);
        work.Scores ??= TokenScores.Room(work.Count, work.Format.Entropy, work.Format.TopK);
        Measure(work.Count, work.Documents, [work], () => Score(work.Tokens.AsSpan(0, work.Count), lengths, work.Documents, work.Scores, cancellation.Token));
    }

    private void Score(ReadOnlySpan<int> tokens, ReadOnlySpan<int> lengths, int[]? documents, TokenScores scores, CancellationToken cancellation) =>
        _model.Score(tokens, lengths, documents is null ? default : documents.AsSpan(0, tokens.Length), scores, cancellation);

    private void ScoreTogether(List<ScoringWork> batch)
    {
        var format = batch[0].Format;
        var tokens = new int[batch.Sum(work => work.Count)];
        var documents = batch.Exists(work => work.Documents is not null) ? new int[tokens.Length] : null;
        var scores = TokenScores.Room(tokens.Length, format.Entropy, format.TopK);
        var lengths = new List<int>();
        var at = 0;
        foreach (var work in batch)
        {
            lengths.AddRange(Enumerable.Repeat(work.Length, work.Sequences));
            work.Tokens.AsSpan(0, work.Count).CopyTo(tokens.AsSpan(at));
            work.Documents?.AsSpan(0, work.Count).CopyTo(documents.AsSpan(at));
            at += work.Count;
        }

        Measure(tokens.Length, documents, batch, () => Score(tokens, CollectionsMarshal.AsSpan(lengths), documents, scores, _stop.Token));
        at = 0;
        foreach (var work in batch)
        {
            (work.Scores, work.FirstScore) = (scores, at);
            at += work.Count;
        }
    }

    private static UnavailableException Stopping() => new("the scorer is stopping");

    private void Measure(int tokens, int[]? documents, List<ScoringWork> batch, Action score)
    {
        var padding = documents?.AsSpan(0, tokens).Count(-1) ?? 0;
        // A batch may be of many streams: it is no child of one but linked to each.
        var links = ScoringMetrics.Activities.HasListeners() ? batch.Where(part => part.Trace != default).Select(part => new ActivityLink(part.Trace)) : null;
        using var activity = ScoringMetrics.Activities.StartActivity(ActivityKind.Internal, links: links, name: "score batch");
        activity?.SetTag("rho.tokens", tokens);
        var start = Stopwatch.GetTimestamp();
        score();
        var seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        _metrics.TokensScored.Add(tokens);
        _metrics.PaddingTokens.Add(padding);
        _metrics.Batches.Add(1);
        _metrics.BatchFill.Record((double)tokens / _batchTokens);
        _metrics.BatchSeconds.Record(seconds);
        lock (_gate)
        {
            _lastBatch = Stopwatch.GetTimestamp();
            // An average over about the last 20 seconds of work, so that it follows a changing load but no single batch.
            var weight = _tokensPerSecond == 0 ? 1 : 1 - Math.Exp(-seconds / 20);
            _tokensPerSecond += weight * (tokens / Math.Max(seconds, 1e-9) - _tokensPerSecond);
        }
    }
}

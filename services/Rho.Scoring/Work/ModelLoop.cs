using System.Diagnostics;
using System.Runtime.InteropServices;
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
        Measure(work, [work], () => Score(work, lengths, cancellation.Token));
    }

    private void Score(ScoringWork work, ReadOnlySpan<int> lengths, CancellationToken cancellation)
    {
        var tokens = work.Tokens.AsSpan(0, work.Count);
        var documents = work.Documents is null ? default : work.Documents.AsSpan(0, work.Count);
        var losses = work.Losses.AsSpan(0, work.Count);
        if (!work.Format.IsMoreThanLosses)
        {
            _model.Score(tokens, lengths, documents, losses, cancellation);
            return;
        }

        var (entropies, top) = (work.Format.Entropy ? work.Count : 0, work.Count * work.Format.TopK);
        ((IDistributionModel)_model).Score(
            tokens, lengths, documents, losses,
            work.Entropies.AsSpan(0, entropies), work.Format.TopK, work.TopIds.AsSpan(0, top), work.TopLogProbabilities.AsSpan(0, top), cancellation);
    }

    private void ScoreTogether(List<ScoringWork> batch)
    {
        var format = batch[0].Format;
        var count = batch.Sum(work => work.Count);
        var whole = new ScoringWork
        {
            Client = "",
            Tokens = new int[count],
            Sequences = 1,
            Length = count,
            Documents = batch.Exists(work => work.Documents is not null) ? new int[count] : null,
            Format = format,
            Losses = new float[count],
            Entropies = format.Entropy ? new float[count] : [],
            TopIds = new int[count * format.TopK],
            TopLogProbabilities = new float[count * format.TopK],
            Cancellation = _stop.Token,
        };
        var lengths = new List<int>();
        var at = 0;
        foreach (var work in batch)
        {
            lengths.AddRange(Enumerable.Repeat(work.Length, work.Sequences));
            work.Tokens.AsSpan(0, work.Count).CopyTo(whole.Tokens.AsSpan(at));
            work.Documents?.AsSpan(0, work.Count).CopyTo(whole.Documents.AsSpan(at));
            at += work.Count;
        }

        Measure(whole, batch, () => Score(whole, CollectionsMarshal.AsSpan(lengths), _stop.Token));
        at = 0;
        foreach (var work in batch)
        {
            var top = work.Count * format.TopK;
            whole.Losses.AsSpan(at, work.Count).CopyTo(work.Losses);
            if (format.Entropy) whole.Entropies.AsSpan(at, work.Count).CopyTo(work.Entropies);
            whole.TopIds.AsSpan(at * format.TopK, top).CopyTo(work.TopIds);
            whole.TopLogProbabilities.AsSpan(at * format.TopK, top).CopyTo(work.TopLogProbabilities);
            at += work.Count;
        }
    }

    private static UnavailableException Stopping() => new("the scorer is stopping");

    private void Measure(ScoringWork work, List<ScoringWork> batch, Action score)
    {
        var tokens = work.Count;
        var padding = work.Documents is { } documents ? documents.AsSpan(0, tokens).Count(-1) : 0;
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

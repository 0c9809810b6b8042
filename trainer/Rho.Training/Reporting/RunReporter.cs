namespace Rho.Training;

/// <summary>Where a run's events go: metrics.jsonl, TensorBoard, the meter and whoever watches. From any thread.</summary>
internal sealed class RunReporter : IDisposable
{
    private readonly EventStream _events;
    private readonly bool _leads;
    private readonly MetricsFile? _metrics;
    private readonly TensorBoardWriter? _tensorBoard;
    private readonly TrainingMeter _meter;
    private long _step;
    private bool _metricsWait;                   // whether metrics are in memory that the disk did not take

    /// <param name="folder">Null on ranks that follow: they write nothing, and only say what goes wrong.</param>
    /// <param name="step">Steps done.</param>
    public RunReporter(RunFile run, RunFolder? folder, EventStream events, bool leads, long step)
    {
        (_events, _leads, _step) = (events, leads, step);
        // By their folders' names, or, where two have the same, by all of their paths.
        var corpora = run.Data.Corpora.Select(corpus => Path.GetFileName(Path.TrimEndingDirectorySeparator(corpus.Path))).ToList();
        if (corpora.Distinct(StringComparer.Ordinal).Count() < corpora.Count) corpora = [.. run.Data.Corpora.Select(corpus => corpus.Path)];
        if (folder is not null)
        {
            _metrics = new MetricsFile(folder.Directory, step);
            _tensorBoard = run.Metrics.Tensorboard ? new TensorBoardWriter(folder.TensorBoard, step, corpora) : null;
        }

        _meter = new TrainingMeter(run.Name!, corpora);
    }

    /// <summary>A warning at the last step that is done.</summary>
    public void Warn(string message) => Publish(new RunWarning { Step = Interlocked.Read(ref _step), Message = message });

    public void Publish(TrainingEvent e)
    {
        if (e is StepFinished) Interlocked.Exchange(ref _step, e.Step);
        if (!_leads && e is not (RunWarning or RunEnded)) return;
        // The loop, the checkpoint writer and the reference loader all have something to say.
        string? problem;
        bool isNew;
        lock (_events)
        {
            _metrics?.Write(e);
            _tensorBoard?.Write(e);
            problem = _metrics?.Problem ?? _tensorBoard?.Problem;
            isNew = problem is not null && !_metricsWait;
            _metricsWait = problem is not null;
        }

        _meter.Record(e);
        _events.Publish(e);
        if (isNew) Publish(new RunWarning { Step = e.Step, Message = $"metrics cannot be written: {problem}; they are kept in memory, and training goes on" });
    }

    public void Dispose()
    {
        _metrics?.Dispose();
        _tensorBoard?.Dispose();
        _meter.Dispose();
    }
}

namespace Rho.Training;

/// <summary>How far selection moves from checkpoint to checkpoint, seen at one fixed batch: the first that was trained on.</summary>
internal sealed class SelectionProbe(RunPlan plan, StepRunner runner)
{
    private PreparedBatch? _batch;
    private float[]? _weights;

    /// <summary>Keeps the first batch that it is given.</summary>
    public void Offer(PreparedBatch batch) => _batch ??= batch;

    /// <summary>The share of what was selected of the batch the time before that is selected now; null where there is none.</summary>
    /// <param name="step">Steps done.</param>
    public double? Overlap(long step)
    {
        if (plan.Run.Objective.Kind != ObjectiveKind.Slm || _batch is not { WithoutReference: false }) return null;
        var before = _weights;
        _weights = runner.Select(step, _batch);
        if (before is null) return null;
        double both = 0, first = 0;
        for (var i = 0; i < before.Length; i++)
        {
            if (before[i] <= 0) continue;
            first++;
            if (_weights[i] > 0) both++;
        }

        return first == 0 ? null : both / first;
    }
}

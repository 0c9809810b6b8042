using System.Diagnostics.Metrics;

namespace Rho.Training;

/// <summary>A run's metrics as instruments of the meter "Rho.Training", for OpenTelemetry and the metrics endpoint.</summary>
internal sealed class TrainingMeter : IDisposable
{
    public const string Name = "Rho.Training";

    private readonly Meter _meter = new(Name);
    private readonly KeyValuePair<string, object?> _run;
    private readonly Counter<long> _tokens;
    private readonly Counter<long> _selected;
    private readonly Counter<long> _skipped;
    private readonly Counter<double> _scoreWait;
    private readonly Histogram<double> _stepTime;
    private readonly Gauge<double> _loss;
    private readonly Gauge<double> _gradientNorm;
    private readonly Gauge<double> _learningRate;
    private readonly Gauge<double> _speed;
    private readonly Gauge<double> _heldOut;
    private (long Tokens, long Selected) _last;

    public TrainingMeter(string run)
    {
        _run = new("run", run);
        _tokens = _meter.CreateCounter<long>("rho.training.tokens", "{token}", "Tokens read");
        _selected = _meter.CreateCounter<long>("rho.training.selected_tokens", "{token}", "Tokens that counted in the loss");
        _skipped = _meter.CreateCounter<long>("rho.training.skipped_steps", "{step}", "Steps that left the weights as they were");
        _scoreWait = _meter.CreateCounter<double>("rho.training.score_wait", "s", "Time that training stood still for reference losses");
        _stepTime = _meter.CreateHistogram<double>("rho.training.step.duration", "s", "Time of a step");
        _loss = _meter.CreateGauge<double>("rho.training.loss", "nat", "Mean loss of the trained tokens");
        _gradientNorm = _meter.CreateGauge<double>("rho.training.gradient_norm", null, "Norm of the gradient before clipping");
        _learningRate = _meter.CreateGauge<double>("rho.training.learning_rate", null, "Learning rate");
        _speed = _meter.CreateGauge<double>("rho.training.tokens_per_second", "{token}/s", "Tokens read per second");
        _heldOut = _meter.CreateGauge<double>("rho.training.held_out_loss", "nat", "Mean loss on held-out text");
    }

    public void Record(TrainingEvent e)
    {
        switch (e)
        {
            case RunStarted started when !started.Resumed:
                _last = default;
                break;
            case StepFinished step:
                if (_last != default || step.Step == 1)
                {
                    _tokens.Add(step.Tokens - _last.Tokens, _run);
                    _selected.Add(step.SelectedTokens - _last.Selected, _run);
                }

                _last = (step.Tokens, step.SelectedTokens);
                if (step.Skipped != null) _skipped.Add(1, _run);
                _scoreWait.Add(step.ScoreWaitMilliseconds / 1000, _run);
                _stepTime.Record(step.Milliseconds / 1000, _run);
                if (step.Loss is { } loss) _loss.Record(loss, _run);
                if (step.GradientNorm is { } norm) _gradientNorm.Record(norm, _run);
                _learningRate.Record(step.LearningRate, _run);
                _speed.Record(step.TokensPerSecond, _run);
                break;
            case EvaluationFinished evaluation:
                foreach (var (name, value) in evaluation.Losses) _heldOut.Record(value, _run, new("set", name));
                break;
        }
    }

    public void Dispose() => _meter.Dispose();
}

using System.CommandLine;
using System.Globalization;
using Rho.Cli.Terminal;
using Rho.Hosting;
using Rho.Training;

namespace Rho.Cli.Commands;

/// <summary>rho train: a run from its file, or one that goes on.</summary>
internal static class TrainCommand
{
    public static Command Create()
    {
        var file = new Argument<string?>("RUN") { Description = "Run file (JSON, comments allowed)", Arity = ArgumentArity.ZeroOrOne };
        var resume = new Option<string?>("--resume") { Description = "Go on with the run in this folder, at its newest whole checkpoint", HelpName = "DIR" };
        var command = new ExampleCommand(
            "train", "Train a model. Ctrl-C and SIGTERM stop after the step in progress, with a checkpoint.",
            "rho train run.json",
            "rho train --resume runs/slm") { file, resume };
        command.Validators.Add(result =>
        {
            var given = (result.GetValue(file) is null ? 0 : 1) + (result.GetValue(resume) is null ? 0 : 1);
            if (given != 1) result.AddError(given == 0 ? "name a run file, or a folder with --resume" : "a run file and --resume exclude each other");
        });
        command.SetAction(async (result, cancellation) =>
        {
            var run = result.GetValue(resume) is { } directory ? TrainingRun.Resume(directory) : TrainingRun.Start(RunFile.Load(result.GetValue(file)!));
            using var telemetry = TrainingRun.IsFollower ? null : Telemetry.Start("rho-train");
            using var progress = TrainingRun.IsFollower ? null : new TrainingProgress("training");
            var ended = progress is null ? await run.RunAsync(cancellation) : await progress.RunAsync(run, cancellation);
            if (ended.State == RunState.Finished) return 0;
            await Console.Error.WriteLineAsync($"stopped after step {ended.Step}; go on with: rho train --resume {run.Directory}");
            throw new OperationCanceledException(cancellation);
        });
        return command;
    }
}

/// <summary>A run's events as one line of progress, with warnings and held-out losses above it.</summary>
internal sealed class TrainingProgress(string title) : IDisposable
{
    private readonly ProgressLine _line = new(title, "tokens");
    private long _steps, _tokensPerStep;
    private string _note = "";

    /// <summary>Sees every event, before it is shown.</summary>
    public Action<TrainingEvent>? Observer { get; init; }

    /// <summary>Whether held-out losses become lines of their own.</summary>
    public bool ShowEvaluations { get; init; } = true;

    public async Task<RunResult> RunAsync(TrainingRun run, CancellationToken cancellation)
    {
        var watching = WatchAsync(run);
        var result = await run.RunAsync(cancellation);
        await watching;
        if (result.State == RunState.Finished)
            _line.Complete($"{Quantities.Short(result.Step * _tokensPerStep)} tokens{string.Concat(result.Losses.Select(pair => $", {pair.Key} loss {Number(pair.Value)}"))}, {result.Model}");
        return result;
    }

    public void Dispose() => _line.Dispose();

    private async Task WatchAsync(TrainingRun run)
    {
        await foreach (var e in run.WatchAsync(CancellationToken.None))
        {
            Observer?.Invoke(e);
            Show(e);
        }
    }

    private void Show(TrainingEvent e)
    {
        switch (e)
        {
            case RunStarted started:
                (_steps, _tokensPerStep) = (started.Steps, started.TokensPerStep);
                if (ShowEvaluations) _line.Print($"{started.Name}: {started.Model}, {started.Steps} steps of {started.TokensPerStep} tokens{(started.Resumed ? $", from step {started.Step}" : "")}");
                break;
            case StepFinished step:
                _note = $"step {step.Step} of {_steps}  loss {Number(step.AllLoss)}{(step.SelectedShare is < 1 and var share ? $", selected {100 * share:0} %: {Number(step.SelectedLoss)}" : "")}{(step.ScoreWaitMilliseconds > step.Milliseconds / 2 ? "  waiting for scores" : "")}";
                _line.Report(step.Tokens, _steps * _tokensPerStep, _note);
                break;
            case EvaluationFinished evaluation when ShowEvaluations:
                _line.Print($"held-out after {Quantities.Short(evaluation.Tokens)} tokens: {string.Join(", ", evaluation.Losses.Select(pair => $"{pair.Key} {Number(pair.Value)}"))}");
                break;
            case RunWarning warning:
                _line.Print($"warning: {warning.Message}");
                break;
        }
    }

    private static string Number(double? value) => value?.ToString("F3", CultureInfo.InvariantCulture) ?? "none";
}

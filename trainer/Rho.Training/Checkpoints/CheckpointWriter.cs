using System.Diagnostics;
using Rho.Model;

namespace Rho.Training;

/// <summary>Writes checkpoints one at a time, in the background where asked to: training stands still only for the copy of the state.</summary>
internal sealed class CheckpointWriter(CheckpointStore store, RunPlan plan, StepRunner runner, Action<TrainingEvent> publish) : IAsyncDisposable
{
    private Task _writing = Task.CompletedTask;

    /// <param name="start">When training stopped for it (<see cref="Stopwatch.GetTimestamp"/>).</param>
    /// <param name="wait">Whether to come back only when it is on disk.</param>
    /// <param name="request">Who asked for it, to be told.</param>
    /// <param name="failureThrows">Otherwise a failure is a warning: the run goes on, and tries again at the next checkpoint.</param>
    /// <exception cref="RhoException">It could not be written, and <paramref name="failureThrows"/>.</exception>
    public void Write(CheckpointState state, double? maskOverlap, long start, bool wait, TaskCompletionSource<string>? request, bool failureThrows)
    {
        var begin = DateTimeOffset.UtcNow - Stopwatch.GetElapsedTime(start);
        _writing.Wait(); // One at a time; this thread is training's own.
        var snapshot = CheckpointSnapshot.Take(state, runner, plan.Compute.Resolve(plan.Device));
        var stall = Stopwatch.GetElapsedTime(start);
        Exception? failure = null;

        void Run()
        {
            using var activity = TrainingActivities.Start("training.checkpoint", plan.Run.Name!, state.Step, begin);
            try
            {
                using (snapshot)
                {
                    var path = store.Write(snapshot, plan.Tokenizer);
                    var elapsed = Stopwatch.GetElapsedTime(start);
                    publish(new CheckpointWritten
                    {
                        Step = state.Step,
                        Path = path,
                        StallMilliseconds = (wait ? elapsed : stall).TotalMilliseconds,
                        Milliseconds = elapsed.TotalMilliseconds,
                        MaskOverlap = maskOverlap,
                    });
                    request?.TrySetResult(path);
                }
            }
            catch (RhoException e)
            {
                failure = e;
                activity?.SetStatus(ActivityStatusCode.Error, e.Message);
                if (!failureThrows) publish(new RunWarning { Step = state.Step, Message = $"{e.Message}; training goes on, the next checkpoint tries again" });
                request?.TrySetException(e);
            }
        }

        if (!wait)
        {
            _writing = Task.Run(Run);
            return;
        }

        Run();
        if (failure is not null && failureThrows) System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
    }

    public async ValueTask DisposeAsync() => await _writing;
}

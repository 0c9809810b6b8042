using Microsoft.AspNetCore.Http;

namespace Rho.Hosting;

/// <summary>The calls that are in progress, so that connections are not closed under them.</summary>
internal sealed class RunningCalls
{
    private readonly Lock _lock = new();
    private readonly HashSet<TaskCompletionSource> _running = [];

    /// <summary>Counts a call until its response is complete.</summary>
    public void Add(HttpResponse response)
    {
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (_lock) _running.Add(ended);
        response.OnCompleted(() =>
        {
            lock (_lock) _running.Remove(ended);
            ended.TrySetResult();
            return Task.CompletedTask;
        });
    }

    /// <summary>Done when all calls that run now have ended.</summary>
    public Task Ended()
    {
        lock (_lock) return Task.WhenAll(_running.Select(call => call.Task));
    }
}

using Microsoft.Extensions.Logging;
using Rho.Hosting;
using Rho.Serving.Engine;

namespace Rho.Serving.Models;

/// <summary>A model that stays loaded until this is disposed. Hold it while a request is prepared and submitted, no longer.</summary>
public readonly struct ModelUse(ServedModel model) : IDisposable
{
    public ServedModel Model { get; } = model;

    public void Dispose() => Model.EndUse();
}

/// <summary>The models that are served, by name. Loading under a name in use swaps: who came before finishes on the old version.</summary>
public sealed partial class ModelRegistry(
    ServingOptions options, EngineMetrics metrics, ServiceHealth health, TimeProvider time, ILogger<ModelRegistry> logger) : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly SortedDictionary<string, ServedModel> _models = new(StringComparer.Ordinal);
    private readonly HashSet<Task> _closing = [];
    private readonly SemaphoreSlim _loading = new(1);
    private readonly CancellationTokenSource _patience = new();
    private bool _disposed;

    public IReadOnlyList<ServedModel> Models
    {
        get
        {
            lock (_lock) return [.. _models.Values];
        }
    }

    /// <summary>The model of a name; null or empty names the only one.</summary>
    /// <exception cref="NotFoundException">No such model is served.</exception>
    public ModelUse Use(string? name)
    {
        while (true)
        {
            ServedModel? model;
            lock (_lock)
            {
                if (_disposed) throw new UnavailableException("the server is stopping");
                if (string.IsNullOrEmpty(name)) model = _models.Count == 1 ? _models.Values.First() : null;
                else _models.TryGetValue(name, out model);
                if (model is null) throw Unknown_NeedsLock(name);
            }

            // False if it was swapped just now: then its name leads to the next version.
            if (model.TryUse()) return new ModelUse(model);
        }
    }

    /// <summary>Loads a checkpoint folder and serves it under a name from the moment it is ready.</summary>
    /// <param name="changes">Options that differ from the server's.</param>
    /// <returns>The model, and whether the name was in use before.</returns>
    /// <exception cref="RhoException">The folder cannot be loaded; what was served before still is.</exception>
    public async Task<(ServedModel Model, bool Swapped)> LoadAsync(ModelSource source, CancellationToken cancellation, Func<ServingOptions, ServingOptions>? changes = null)
    {
        // One at a time: two loads at once would need the memory of both.
        await _loading.WaitAsync(cancellation);
        try
        {
            Loading(source.Name, source.Path);
            var started = time.GetTimestamp();
            var chosen = changes?.Invoke(options) ?? options;
            var model = await Task.Run(() => ServedModel.Load(source, chosen, metrics, health, time, logger), cancellation);
            ServedModel? old;
            lock (_lock)
            {
                if (_disposed)
                {
                    Close_NeedsLock(model);
                    throw new UnavailableException("the server is stopping");
                }

                _models.Remove(source.Name, out old);
                _models.Add(source.Name, model);
                if (old is not null) Close_NeedsLock(old);
            }

            health.Ready("model");
            Loaded(source.Name, model.Description, time.GetElapsedTime(started).TotalSeconds, old is null ? "" : ", in place of the version before");
            return (model, old is not null);
        }
        finally
        {
            _loading.Release();
        }
    }

    /// <summary>Stops serving a model and returns when its requests are done and it is freed.</summary>
    /// <exception cref="NotFoundException">No such model is served.</exception>
    public async Task UnloadAsync(string name, CancellationToken cancellation)
    {
        Task closed;
        lock (_lock)
        {
            if (!_models.Remove(name, out var model)) throw Unknown_NeedsLock(name);
            closed = Close_NeedsLock(model);
            if (_models.Count == 0) health.NotReady("model", "none is loaded");
        }

        await closed.WaitAsync(cancellation);
        Unloaded(name);
    }

    /// <summary>Fails what still runs, and frees all models.</summary>
    public async ValueTask DisposeAsync()
    {
        Task[] closing;
        lock (_lock)
        {
            _disposed = true;
            foreach (var model in _models.Values) Close_NeedsLock(model);
            _models.Clear();
            closing = [.. _closing];
        }

        await _patience.CancelAsync();
        await Task.WhenAll(closing);
        _patience.Dispose();
        _loading.Dispose();
    }

    private Task Close_NeedsLock(ServedModel model)
    {
        var task = CloseAsync(model);
        _closing.Add(task);
        _ = task.ContinueWith(
            closed =>
            {
                lock (_lock) _closing.Remove(closed);
            },
            CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        return task;
    }

    private async Task CloseAsync(ServedModel model)
    {
        await Task.Yield();
        await model.CloseAsync(_patience.Token);
        lock (_lock)
        {
            if (!_models.ContainsKey(model.Name)) metrics.Forget(model.Name);
        }
    }

    private RhoException Unknown_NeedsLock(string? name)
    {
        if (_models.Count == 0) return new UnavailableException("no model is loaded");
        var served = string.Join(", ", _models.Keys);
        return string.IsNullOrEmpty(name)
            ? new InvalidFieldException("model", $"name one of the models that are served: {served}")
            : new NotFoundException($"model '{name}' is not served here; served: {served}");
    }

    [LoggerMessage(LogLevel.Information, "loading model {Name} from {Path}")]
    private partial void Loading(string name, string path);

    [LoggerMessage(LogLevel.Information, "model {Name} is served: {Description}, loaded in {Seconds:F1} s{Note}")]
    private partial void Loaded(string name, string description, double seconds, string note);

    [LoggerMessage(LogLevel.Information, "model {Name} is no longer served")]
    private partial void Unloaded(string name);
}

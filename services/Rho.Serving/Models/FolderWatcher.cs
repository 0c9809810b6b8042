using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Rho.Serving.Models;

/// <summary>
/// Serves what lies in a folder: every checkpoint folder in it under its name. Looks at names, sizes and times from time to time,
/// which works on network file systems too. A folder that cannot be loaded is tried again once it changes.
/// </summary>
internal sealed partial class FolderWatcher(ServingOptions options, ModelRegistry registry, TimeProvider time, ILogger<FolderWatcher> logger) : BackgroundService
{
    private readonly Dictionary<string, string> _seen = new(StringComparer.Ordinal);
    private readonly HashSet<string> _served = new(StringComparer.Ordinal);

    protected override async Task ExecuteAsync(CancellationToken cancellation)
    {
        if (options.WatchFolder is not { } folder) return;
        using var timer = new PeriodicTimer(options.WatchInterval, time);
        do
        {
            try
            {
                await LookAsync(folder, cancellation);
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                CannotLook(folder, exception.Message);
            }
        }
        while (await timer.WaitForNextTickAsync(cancellation));
    }

    private async Task LookAsync(string folder, CancellationToken cancellation)
    {
        var present = Directory.GetDirectories(folder)
            .Where(path => File.Exists(Path.Combine(path, "config.json")) && !path.EndsWith(".tmp", StringComparison.Ordinal) && Path.GetFileName(path)[0] != '.')
            .ToDictionary(path => Path.GetFileName(path)!, path => path, StringComparer.Ordinal);
        foreach (var gone in _seen.Keys.Except(present.Keys, StringComparer.Ordinal).ToArray())
        {
            _seen.Remove(gone);
            if (_served.Remove(gone)) await TryAsync(gone, () => registry.UnloadAsync(gone, cancellation));
        }

        foreach (var (name, path) in present)
        {
            var state = StateOf(path);
            if (_seen.GetValueOrDefault(name) == state) continue;
            _seen[name] = state;
            if (await TryAsync(name, () => registry.LoadAsync(new ModelSource(name, path), cancellation))) _served.Add(name);
        }
    }

    private async Task<bool> TryAsync(string name, Func<Task> work)
    {
        try
        {
            await work();
            return true;
        }
        catch (RhoException exception)
        {
            CannotServe(name, exception.Message);
            return false;
        }
    }

    private static string StateOf(string path) => string.Join('\n', new DirectoryInfo(path).GetFiles()
        .OrderBy(file => file.Name, StringComparer.Ordinal)
        .Select(file => $"{file.Name} {file.Length} {file.LastWriteTimeUtc.Ticks}"));

    [LoggerMessage(LogLevel.Warning, "cannot serve {Name} of the watched folder: {Problem}")]
    private partial void CannotServe(string name, string problem);

    [LoggerMessage(LogLevel.Warning, "cannot look into the watched folder {Folder}: {Problem}")]
    private partial void CannotLook(string folder, string problem);
}

using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;

namespace Rho.Cli.Quickstart;

/// <summary>
/// A process that lives no longer than this object, and on Linux no longer than this process, even if that is killed.
/// Its output goes to a log file line by line.
/// </summary>
internal sealed partial class ChildProcess : IAsyncDisposable
{
    private const int Terminate = 15;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly Lock _gate = new();
    private readonly ManualResetEventSlim _ended = new();
    private readonly TaskCompletionSource<string> _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly StreamWriter? _log;
    private readonly Func<string, string?> _readiness;

    private ChildProcess(string name, string program, IEnumerable<string> arguments, IReadOnlyDictionary<string, string>? environment, string? logPath, Func<string, string?> readiness)
    {
        Name = name;
        _readiness = readiness;
        _log = logPath is null ? null : new StreamWriter(logPath, append: true) { AutoFlush = true };
        _process = new Process { StartInfo = StartInfo(program, arguments, environment), EnableRaisingEvents = true };
        _process.OutputDataReceived += (_, line) => Take(line.Data);
        _process.ErrorDataReceived += (_, line) => Take(line.Data);
        _process.Exited += (_, _) =>
        {
            _ready.TrySetException(new RhoException($"{Name} ended before it was ready: {LastLine()}"));
            _ended.Set();
        };
        Start();
    }

    public string Name { get; }

    public int Id => _process.Id;

    public bool HasExited => _process.HasExited;

    /// <summary>Everything the process has printed, both streams in the order of arrival.</summary>
    public string Output
    {
        get
        {
            lock (_gate) return _output.ToString();
        }
    }

    /// <summary>Starts a process. <paramref name="readiness"/> sees every line of output and returns what <see cref="ReadyAsync"/> gives, once there is something.</summary>
    public static ChildProcess Start(string name, string program, IEnumerable<string> arguments, Func<string, string?> readiness, string? logPath = null, IReadOnlyDictionary<string, string>? environment = null) =>
        new(name, program, arguments, environment, logPath, readiness);

    /// <summary>Starts this executable again with other arguments.</summary>
    public static ChildProcess StartSelf(string name, IEnumerable<string> arguments, Func<string, string?> readiness, string? logPath = null, IReadOnlyDictionary<string, string>? environment = null) =>
        Start(name, Environment.ProcessPath ?? throw new InvalidOperationException("no path of the executable"), arguments, readiness, logPath, environment);

    /// <summary>Waits for the line that says the process is ready; fails when it ends or takes too long.</summary>
    public async Task<string> ReadyAsync(TimeSpan timeout, CancellationToken cancellation)
    {
        try
        {
            return await _ready.Task.WaitAsync(timeout, cancellation);
        }
        catch (TimeoutException exception)
        {
            throw new RhoException($"{Name} was not ready after {timeout.TotalSeconds:0} s: {LastLine()}", exception);
        }
    }

    public Task WaitForExitAsync(CancellationToken cancellation) => _process.WaitForExitAsync(cancellation);

    public int ExitCode => _process.ExitCode;

    public void Signal(int signal)
    {
        if (!_process.HasExited) _ = Kill(_process.Id, signal);
    }

    /// <summary>Asks the process to end, and after ten seconds makes it.</summary>
    public async Task StopAsync()
    {
        if (!_process.HasExited)
        {
            Signal(Terminate);
            using var patience = new CancellationTokenSource(Patience);
            try
            {
                await _process.WaitForExitAsync(patience.Token);
            }
            catch (OperationCanceledException)
            {
                _process.Kill(entireProcessTree: true);
            }
        }

        await _process.WaitForExitAsync(CancellationToken.None);
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        _ended.Set();
        lock (_gate) _log?.Dispose();
        _process.Dispose();
    }

    private static ProcessStartInfo StartInfo(string program, IEnumerable<string> arguments, IReadOnlyDictionary<string, string>? environment)
    {
        // setpriv (util-linux) has the kernel end the child when the thread that started it is gone.
        const string SetPrivileges = "/usr/bin/setpriv";
        var start = new ProcessStartInfo
        {
            FileName = File.Exists(SetPrivileges) ? SetPrivileges : program,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        if (start.FileName == SetPrivileges)
        {
            foreach (var argument in (string[])["--pdeathsig", "KILL", "--", program]) start.ArgumentList.Add(argument);
        }

        foreach (var argument in arguments) start.ArgumentList.Add(argument);
        foreach (var (key, value) in environment ?? new Dictionary<string, string>()) start.Environment[key] = value;
        return start;
    }

    private void Start()
    {
        // The starting thread has to stay while the child lives: the kernel watches the thread, not the process.
        Exception? failure = null;
        using var started = new ManualResetEventSlim();
        var starter = new Thread(() =>
        {
            try
            {
                _process.Start();
            }
            catch (Exception exception)
            {
                failure = exception;
                return;
            }
            finally
            {
                started.Set();
            }

            _ended.Wait();
        })
        { IsBackground = true, Name = $"keeper of {Name}" };
        starter.Start();
        started.Wait();
        if (failure is not null) throw new RhoException($"cannot start {Name}: {failure.Message}", failure);
        _process.StandardInput.Close();
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
    }

    private void Take(string? line)
    {
        if (line is null) return;
        lock (_gate)
        {
            _output.AppendLine(line);
            _log?.WriteLine(line);
        }

        if (_readiness(line) is { } result) _ready.TrySetResult(result);
    }

    private string LastLine() => Output.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).LastOrDefault() ?? "it printed nothing";

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int process, int signal);
}

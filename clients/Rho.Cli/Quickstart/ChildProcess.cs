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

    private readonly Process process;
    private readonly string name;
    private readonly StringBuilder output = new();
    private readonly Lock gate = new();
    private readonly ManualResetEventSlim ended = new();
    private readonly TaskCompletionSource<string> ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly StreamWriter? log;
    private readonly Func<string, string?> readiness;

    private ChildProcess(string name, string program, IEnumerable<string> arguments, IReadOnlyDictionary<string, string>? environment, string? logPath, Func<string, string?> readiness)
    {
        this.name = name;
        this.readiness = readiness;
        log = logPath is null ? null : new StreamWriter(logPath, append: true) { AutoFlush = true };
        process = new Process { StartInfo = StartInfo(program, arguments, environment), EnableRaisingEvents = true };
        process.OutputDataReceived += (_, line) => Take(line.Data);
        process.ErrorDataReceived += (_, line) => Take(line.Data);
        process.Exited += (_, _) =>
        {
            ready.TrySetException(new RhoException($"{name} ended before it was ready: {LastLine()}"));
            ended.Set();
        };
        Start();
    }

    public int Id => process.Id;

    public bool HasExited => process.HasExited;

    /// <summary>Everything the process has printed, both streams in the order of arrival.</summary>
    public string Output
    {
        get
        {
            lock (gate) return output.ToString();
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
            return await ready.Task.WaitAsync(timeout, cancellation);
        }
        catch (TimeoutException exception)
        {
            throw new RhoException($"{name} was not ready after {timeout.TotalSeconds:0} s: {LastLine()}", exception);
        }
    }

    public Task WaitForExitAsync(CancellationToken cancellation) => process.WaitForExitAsync(cancellation);

    public int ExitCode => process.ExitCode;

    public void Signal(int signal)
    {
        if (!process.HasExited) _ = Kill(process.Id, signal);
    }

    /// <summary>Asks the process to end, and after ten seconds makes it.</summary>
    public async Task StopAsync()
    {
        if (!process.HasExited)
        {
            Signal(Terminate);
            using var patience = new CancellationTokenSource(Patience);
            try
            {
                await process.WaitForExitAsync(patience.Token);
            }
            catch (OperationCanceledException)
            {
                process.Kill(entireProcessTree: true);
            }
        }

        await process.WaitForExitAsync(CancellationToken.None);
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        ended.Set();
        lock (gate) log?.Dispose();
        process.Dispose();
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
                process.Start();
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

            ended.Wait();
        })
        { IsBackground = true, Name = $"keeper of {name}" };
        starter.Start();
        started.Wait();
        if (failure is not null) throw new RhoException($"cannot start {name}: {failure.Message}", failure);
        process.StandardInput.Close();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    private void Take(string? line)
    {
        if (line is null) return;
        lock (gate)
        {
            output.AppendLine(line);
            log?.WriteLine(line);
        }

        if (readiness(line) is { } result) ready.TrySetResult(result);
    }

    private string LastLine() => Output.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).LastOrDefault() ?? "it printed nothing";

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Kill(int process, int signal);
}

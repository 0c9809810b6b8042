using System.Diagnostics;
using System.Runtime.InteropServices;
using Xunit.Runner.InProc.SystemConsole;

namespace Rho.Training.Tests;

/// <summary>Runs in processes of their own, so that they can be killed and stand beside each other: this assembly, started as a program.</summary>
public static class TrainerProcess
{
    /// <summary>Names the step at which the program holds until it is stopped, so that a run cannot end before it is.</summary>
    private const string HoldVariable = "RHO_TEST_HOLD_AT_STEP";

    /// <summary>For the end of a process that trains beside other work; what is waited for comes in seconds on an idle machine.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(5);

    /// <summary>The tests, or, run by them, "train RUN.json" or "resume DIR"; SIGTERM stops the run.</summary>
    public static async Task<int> Main(string[] arguments)
    {
        if (arguments is not ["train" or "resume", ..]) return await ConsoleRunner.Run(arguments);
        using var stop = new CancellationTokenSource();
        using var onTerm = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
        {
            context.Cancel = true;
            stop.Cancel();
        });
        try
        {
            var run = arguments[0] == "train" ? TrainingRun.Start(RunFile.Load(arguments[1])) : TrainingRun.Resume(arguments[1]);
            if (Environment.GetEnvironmentVariable(HoldVariable) is { } hold)
            {
                var last = long.Parse(hold, System.Globalization.CultureInfo.InvariantCulture);
                run.SelectionObserver = selected =>
                {
                    if (selected.Step > last) stop.Token.WaitHandle.WaitOne();
                };
            }

            var result = await run.RunAsync(stop.Token);
            return result.State == RunState.Finished ? 0 : 2;
        }
        catch (RhoException e)
        {
            await Console.Error.WriteLineAsync(e.Message);
            return 1;
        }
    }

    /// <param name="holdAt">The step after which it holds until SIGTERM, or null to run to its end.</param>
    public static Process Start(long? holdAt, params string[] arguments) => Launch("dotnet", holdAt, ["exec", typeof(TrainerProcess).Assembly.Location, .. arguments]);

    /// <summary>The program as several ranks on this machine; the test is skipped where mpirun is not installed.</summary>
    public static Process StartRanks(int ranks, long? holdAt, params string[] arguments)
    {
        Assert.SkipUnless(HasMpi, "mpirun is not installed (Debian: openmpi-bin)");
        return Launch("mpirun", holdAt, ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", $"{ranks}", "dotnet", "exec", typeof(TrainerProcess).Assembly.Location, .. arguments]);
    }

    private static bool HasMpi { get; } = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(directory => File.Exists(Path.Combine(directory, "mpirun")));

    private static Process Launch(string program, long? holdAt, IEnumerable<string> arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardError = true, RedirectStandardOutput = true, UseShellExecute = false };
        start.Environment["OMP_NUM_THREADS"] = "1";
        start.Environment["OMP_WAIT_POLICY"] = "PASSIVE";
        if (holdAt is not null) start.Environment[HoldVariable] = $"{holdAt}";
        return Process.Start(start)!;
    }

    /// <summary>Waits for the end; gives the exit code and what was said on stderr.</summary>
    public static async Task<(int Code, string Error)> EndAsync(Process process)
    {
        using var limit = new CancellationTokenSource(s_patience);
        try
        {
            var output = process.StandardOutput.ReadToEndAsync(limit.Token);
            var error = await process.StandardError.ReadToEndAsync(limit.Token);
            await output;
            await process.WaitForExitAsync(limit.Token);
            return (process.ExitCode, error);
        }
        finally
        {
            if (!process.HasExited) process.Kill(entireProcessTree: true);
            process.Dispose();
        }
    }
}

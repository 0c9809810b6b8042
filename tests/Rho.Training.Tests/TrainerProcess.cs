using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Rho.Training.Tests;

/// <summary>Runs in processes of their own, so that they can be killed and stand beside each other: this assembly, started as a program.</summary>
public static class TrainerProcess
{
    /// <summary>The program: "train RUN.json" or "resume DIR"; SIGTERM stops the run.</summary>
    public static async Task<int> Main(string[] arguments)
    {
        using var stop = new CancellationTokenSource();
        using var onTerm = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
        {
            context.Cancel = true;
            stop.Cancel();
        });
        try
        {
            var run = arguments[0] == "train" ? TrainingRun.Start(RunFile.Load(arguments[1])) : TrainingRun.Resume(arguments[1]);
            var result = await run.RunAsync(stop.Token);
            return result.State == RunState.Finished ? 0 : 2;
        }
        catch (RhoException e)
        {
            await Console.Error.WriteLineAsync(e.Message);
            return 1;
        }
    }

    public static Process Start(params string[] arguments) => Launch("dotnet", ["exec", typeof(TrainerProcess).Assembly.Location, .. arguments]);

    /// <summary>The program as several ranks on this machine.</summary>
    public static Process StartRanks(int ranks, params string[] arguments) =>
        Launch("mpirun", ["--allow-run-as-root", "--oversubscribe", "-np", $"{ranks}", "dotnet", "exec", typeof(TrainerProcess).Assembly.Location, .. arguments]);

    public static bool HasMpi => File.Exists("/usr/bin/mpirun");

    private static Process Launch(string program, IEnumerable<string> arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardError = true, RedirectStandardOutput = true, UseShellExecute = false };
        start.Environment["OMP_NUM_THREADS"] = "1";
        start.Environment["OMP_WAIT_POLICY"] = "PASSIVE";
        return Process.Start(start)!;
    }

    /// <summary>Waits for the end; gives the exit code and what was said on stderr.</summary>
    public static async Task<(int Code, string Error)> EndAsync(Process process)
    {
        using var limit = new CancellationTokenSource(World.Patience);
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
        }
    }
}

using System.Diagnostics;
using Rho.Cli.Quickstart;

namespace Rho.EndToEnd.Tests;

/// <summary>What a finished call of the executable left.</summary>
internal sealed record RhoResult(int ExitCode, string Output, string Error)
{
    public IReadOnlyList<string> ErrorLines => Error.Split('\n', StringSplitOptions.RemoveEmptyEntries);
}

/// <summary>The rho executable as a user starts it.</summary>
internal static class RhoProgram
{
    public static readonly TimeSpan Patience = TimeSpan.FromMinutes(3);

    private static readonly string Path = System.IO.Path.Combine(AppContext.BaseDirectory, "rho");

    private static readonly Dictionary<string, string> Variables = new(StringComparer.Ordinal) { ["OMP_NUM_THREADS"] = "1", ["RHO_DEBUG"] = "0" };

    /// <summary>Runs a command to its end.</summary>
    public static Task<RhoResult> RunAsync(params string[] arguments) => RunAsync(arguments, new Dictionary<string, string>());

    public static async Task<RhoResult> RunAsync(string[] arguments, IReadOnlyDictionary<string, string> environment)
    {
        var start = new ProcessStartInfo(Path, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        foreach (var (name, value) in Variables.Concat(environment)) start.Environment[name] = value;
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        using var patience = new CancellationTokenSource(Patience);
        var output = process.StandardOutput.ReadToEndAsync(patience.Token);
        var error = process.StandardError.ReadToEndAsync(patience.Token);
        try
        {
            await process.WaitForExitAsync(patience.Token);
            return new RhoResult(process.ExitCode, await output, await error);
        }
        finally
        {
            if (!process.HasExited) process.Kill(entireProcessTree: true);
        }
    }

    /// <summary>Runs a command that has to succeed, and gives what it printed on stdout.</summary>
    public static async Task<string> SucceedAsync(params string[] arguments)
    {
        var result = await RunAsync(arguments);
        Assert.True(result.ExitCode == 0, $"rho {string.Join(' ', arguments)} ended with {result.ExitCode}: {result.Error}");
        return result.Output;
    }

    /// <summary>Runs a command that has to fail as user errors do: code 1, one line on stderr after any progress, no stack trace.</summary>
    public static async Task<string> FailAsync(params string[] arguments)
    {
        var result = await RunAsync(arguments);
        Assert.True(result.ExitCode == 1, $"rho {string.Join(' ', arguments)} ended with {result.ExitCode}, not 1: {result.Error}");
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
        var message = Assert.Single(result.ErrorLines, line => line.StartsWith("rho: ", StringComparison.Ordinal));
        Assert.Equal(message, result.ErrorLines[^1]);
        return message;
    }

    /// <summary>Starts a command that goes on; <paramref name="readiness"/> finds the line that says it is ready, and what in it matters.</summary>
    /// <remarks>Through env, because a shell that starts the tests in the background leaves them, and all they start, deaf to SIGINT.</remarks>
    public static ChildProcess Start(Func<string, string?> readiness, params string[] arguments) =>
        ChildProcess.Start($"rho {arguments[0]}", "/usr/bin/env", ["--default-signal=INT", Path, .. arguments], readiness, environment: Variables);
}

using System.Diagnostics;

namespace Rho.TestSupport;

/// <summary>Debian's Python, whose packages ./rho test installs: another one first in the path has none of them.</summary>
internal static class DebianPython
{
    private const string Program = "/usr/bin/python3";

    /// <summary>For scripts that take seconds, on a machine that does much else.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(10);

    /// <summary>Skips the test where one of these modules cannot be imported.</summary>
    public static async Task NeedAsync(params string[] modules)
    {
        Assert.SkipUnless(File.Exists(Program), $"there is no {Program}");
        const string find = "import importlib.util, sys\nfor m in sys.argv[1:]:\n try: found = importlib.util.find_spec(m)\n except ImportError: found = None\n if not found: print(m)";
        var missing = await RunAsync(["-c", find, .. modules]);
        Assert.SkipUnless(missing.Length == 0, $"not installed for {Program}: {missing.ReplaceLineEndings(" ")}");
    }

    /// <summary>Runs it to its end, which has to be a good one, and returns what it printed.</summary>
    public static async Task<string> RunAsync(string[] arguments, string? folder = null, params (string Name, string Value)[] environment)
    {
        var start = new ProcessStartInfo(Program, arguments) { WorkingDirectory = folder ?? "", RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        foreach (var (name, value) in environment) start.Environment[name] = value;
        using var process = Process.Start(start)!;
        using var patience = new CancellationTokenSource(s_patience);
        var (output, errors) = (process.StandardOutput.ReadToEndAsync(patience.Token), process.StandardError.ReadToEndAsync(patience.Token));
        try
        {
            await process.WaitForExitAsync(patience.Token);
            Assert.True(process.ExitCode == 0, $"python3 {string.Join(' ', arguments)} ended with {process.ExitCode}:\n{await output}\n{await errors}");
            return await output;
        }
        finally
        {
            if (!process.HasExited) process.Kill(entireProcessTree: true);
        }
    }
}

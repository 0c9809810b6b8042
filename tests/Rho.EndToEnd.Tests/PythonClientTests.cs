using System.Diagnostics;
using System.Runtime.InteropServices;
using Rho.Selection;

namespace Rho.EndToEnd.Tests;

/// <summary>The Python client in Debian's Python: its own tests against real scorers, and a PyTorch loop of a user's beside Rho's selection.</summary>
[Collection(WorkshopCollection.Name)]
public sealed class PythonClientTests(Workshop workshop) : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("tests.test_shards")]
    [InlineData("tests.test_selection")]
    [InlineData("tests.test_generated")]
    [InlineData("tests.test_client")]
    [InlineData("tests.test_leaving")]
    public async Task OwnTests_Pass(string module) => await RunAsync("-m", "unittest", "-v", module);

    /// <summary>The wheel, and where PyPI can be reached the oldest and the newest protobuf that it is for.</summary>
    [Theory]
    [InlineData("tests.versions")]
    [Trait("Category", "Slow")]
    public async Task OwnTests_PassWithTheWheelAndOtherVersions(string module) => await RunAsync("-m", "unittest", "-v", module);

    /// <summary>What the user's loop selects is, batch by batch, what Rho's trainer would select of the same losses.</summary>
    [Theory]
    [InlineData("0.6")]
    [InlineData("0.07")]
    public async Task WorkedExample_SelectsWhatRhoSelects(string ratio)
    {
        const int steps = 6, sequences = 8;
        var (scorer, address) = await Services.StartScorerAsync(workshop.Reference);
        await using (scorer) await RunAsync("-m", "tests.selections", address, workshop.CorpusFolder, _folder["selections"], $"{steps}", ratio);

        const int count = sequences * Workshop.Length;
        var bytes = await File.ReadAllBytesAsync(_folder["selections"]);
        Assert.Equal(steps * count * (4 + 4 + 1), bytes.Length);
        var selector = new TopTokens(new ExcessLoss());
        var any = false;
        for (var step = 0; step < steps; step++)
        {
            var part = bytes.AsSpan(step * count * 9, count * 9);
            var current = MemoryMarshal.Cast<byte, float>(part[..(count * 4)]);
            var reference = MemoryMarshal.Cast<byte, float>(part[(count * 4)..(count * 8)]);
            var marks = part[(count * 8)..];
            var weights = new float[count];
            selector.Select(new TokenLosses { Current = current, Reference = reference, Length = Workshop.Length }, double.Parse(ratio, System.Globalization.CultureInfo.InvariantCulture), weights);
            Assert.Equal(weights.Select(weight => (byte)(weight > 0 ? 1 : 0)), marks.ToArray());
            any |= marks.Contains((byte)1) && marks.Contains((byte)0);
        }

        Assert.True(any);
    }

    private static async Task RunAsync(params string[] arguments)
    {
        DebianPython.Need("grpc", "google.protobuf", "numpy", "torch");
        var start = new ProcessStartInfo(DebianPython.Path, arguments)
        {
            WorkingDirectory = Path.Combine(DebianPython.Root, "clients", "python"),
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
            Environment = { ["RHO"] = Path.Combine(AppContext.BaseDirectory, "rho"), ["PYTHONDONTWRITEBYTECODE"] = "1", ["OMP_NUM_THREADS"] = "1", ["OMP_WAIT_POLICY"] = "PASSIVE" },
        };
        using var process = Process.Start(start)!;
        using var patience = new CancellationTokenSource(TimeSpan.FromMinutes(10));
        var (output, error) = (process.StandardOutput.ReadToEndAsync(patience.Token), process.StandardError.ReadToEndAsync(patience.Token));
        try
        {
            await process.WaitForExitAsync(patience.Token);
            Assert.True(process.ExitCode == 0, $"python3 {string.Join(' ', arguments)} ended with {process.ExitCode}:\n{await output}\n{await error}");
        }
        finally
        {
            if (!process.HasExited) process.Kill(entireProcessTree: true);
        }
    }
}

/// <summary>Debian's Python.</summary>
internal static class DebianPython
{
    public const string Path = "/usr/bin/python3";

    /// <summary>The repository.</summary>
    public static string Root { get; } = Ancestors(AppContext.BaseDirectory).First(folder => File.Exists(System.IO.Path.Combine(folder, "Rho.sln")));

    /// <summary>Skips the test where one of these modules cannot be imported.</summary>
    public static void Need(params string[] modules)
    {
        Assert.SkipUnless(File.Exists(Path), $"there is no {Path}");
        using var process = Process.Start(new ProcessStartInfo(Path, ["-c", "import importlib.util, sys\nfor m in sys.argv[1:]:\n try: found = importlib.util.find_spec(m)\n except ImportError: found = None\n if not found: print(m)", .. modules])
        {
            RedirectStandardOutput = true,
            UseShellExecute = false,
        })!;
        var missing = string.Join(", ", process.StandardOutput.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.SkipUnless(missing.Length == 0, $"not installed for {Path}: {missing}");
    }

    private static IEnumerable<string> Ancestors(string folder)
    {
        for (var at = new DirectoryInfo(folder); at is not null; at = at.Parent) yield return at.FullName;
    }
}

using System.Runtime.InteropServices;
using Rho.Selection;
using Rho.TestSupport;

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
        await DebianPython.NeedAsync("grpc", "google.protobuf", "numpy", "torch");
        await DebianPython.RunAsync(
            arguments, Path.Combine(Repository.Root, "clients", "python"),
            ("RHO", Path.Combine(AppContext.BaseDirectory, "rho")), ("PYTHONDONTWRITEBYTECODE", "1"), ("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE"));
    }
}

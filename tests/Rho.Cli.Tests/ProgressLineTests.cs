using Rho.Cli.Terminal;

namespace Rho.Cli.Tests;

public class ProgressLineTests
{
    [Fact]
    public void Complete_NotATerminal_WritesOnePlainLine()
    {
        var output = new StringWriter();
        using (var progress = new ProgressLine("building", "tokens", output, live: false))
        {
            progress.Report(1, 10);
            progress.Complete("10 tokens");
        }

        Assert.StartsWith("done: building: 10 tokens (", output.ToString(), StringComparison.Ordinal);
        Assert.DoesNotContain("\e", output.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Dispose_NotCompleted_ClearsTheLiveLine()
    {
        var output = new StringWriter();
        using (new ProgressLine("building", "tokens", output, live: true)) { }
        Assert.EndsWith("\r\e[K", output.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, "0")]
    [InlineData(1.5, "1.5")]
    [InlineData(950, "950")]
    [InlineData(12_345, "12.3k")]
    [InlineData(4_560_000, "4.56M")]
    public void Short_Quantity_HasThreeDigits(double value, string expected) => Assert.Equal(expected, Quantities.Short(value));

    [Theory]
    [InlineData(4.24, "4.2 s")]
    [InlineData(185, "3:05")]
    [InlineData(7385, "2:03:05")]
    public void Short_Duration_IsReadable(double seconds, string expected) => Assert.Equal(expected, Durations.Short(TimeSpan.FromSeconds(seconds)));

    [Fact]
    public void RateMeter_SteadyWork_GivesItsRate()
    {
        var meter = new RateMeter();
        for (var i = 0; i <= 300; i++) meter.Add(TimeSpan.FromMilliseconds(100 * i), 50 * i);
        Assert.Equal(500, meter.PerSecond, 1.0);
    }
}

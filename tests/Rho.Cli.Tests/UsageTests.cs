using Rho.Scoring;
using Rho.Serving;
using Rho.Training.Service;

namespace Rho.Cli.Tests;

public class UsageTests
{
    [Theory]
    [InlineData("doctr", "unknown command 'doctr'; did you mean 'doctor'?")]
    [InlineData("xyzzy", "unknown command 'xyzzy' (")]
    [InlineData("doctor --hepl", "unknown option '--hepl'; did you mean '--help'?")]
    [InlineData("tokenize --tokenizer t --decod a.txt", "unknown option '--decod'; did you mean '--decode'?")]
    [InlineData("corpus build --tokenizer t --length 8 --out c --shufle 1 a.txt", "unknown option '--shufle'; did you mean '--shuffle'?")]
    [InlineData("corpus build --tokenizer t --length 8 --out c", "name what to read: files, or --mixture")]
    [InlineData("corpus build --tokenizer t --length 8 --out c --mixture m.json --field x", "--field goes with files")]
    [InlineData("corpus build --tokenizer t --length x --out c a.txt", "option '--length': a whole number is expected (")]
    [InlineData("corpus build --tokenizer t --length 8 --shuffle x --out c a.txt", "a whole number is expected (")]
    [InlineData("tokenize --tokenizer t --ids --count", "--ids and --count exclude each other")]
    [InlineData("tokenize --tokenizer t --decode --chat", "--decode goes without --chat")]
    public void Describe_Typo_NamesTheNearest(string line, string expected)
    {
        var message = UsageProblem.Describe(CommandLine.Create().Parse(line));
        Assert.Contains(expected, message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', message);
    }

    [Fact]
    public void Help_EveryCommand_HasExamples()
    {
        foreach (var command in Leaves(CommandLine.Create()))
        {
            var example = Assert.IsType<ExampleCommand>(command);
            Assert.NotEmpty(example.Examples);
            foreach (var line in example.Examples.Where(line => line.StartsWith("rho ", StringComparison.Ordinal)))
                Assert.Empty(CommandLine.Create().Parse(line.Split(" #")[0].Split(" <")[0]["rho ".Length..].Replace('\'', '"')).Errors);
        }
    }

    [Fact]
    public void Services_OptionsNotGiven_AreTheRecordsDefaults()
    {
        var (scoring, serving, training) = (new ScoringOptions(), new ServingOptions(), new TrainingServiceOptions { Runs = "runs" });
        Assert.Equal(scoring.Host.GrpcPort, Default("scorer", "--port"));
        Assert.Equal(scoring.Device, Default("scorer", "--device"));
        Assert.Equal(scoring.LeaseTime.TotalSeconds, Default("scorer", "--lease"));
        Assert.Equal(serving.Device, Default("serve", "--device"));
        Assert.Equal(serving.CacheBytes, (long)(int)Default("serve", "--cache-mib")! << 20);
        Assert.Equal(serving.Engine.MaxWaitingRequests, Default("serve", "--max-waiting"));
        Assert.Equal(training.Host.GrpcPort, Default("trainer", "--port"));
        Assert.Equal(training.Host.DrainTimeout.TotalSeconds, Default("trainer", "--drain-timeout"));
        Assert.NotEqual(serving.Host.DrainTimeout, training.Host.DrainTimeout);
    }

    private static object? Default(string command, string option) =>
        CommandLine.Create().Subcommands.Single(each => each.Name == command).Options.Single(each => each.Name == option).GetDefaultValue();

    private static IEnumerable<System.CommandLine.Command> Leaves(System.CommandLine.Command command) =>
        command.Subcommands.Count == 0 ? [command] : command.Subcommands.SelectMany(Leaves);
}

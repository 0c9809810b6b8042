using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using Rho.Cli.Commands;
using Rho.Cli.Terminal;

namespace Rho.Cli;

/// <summary>
/// The command tree, and what all commands share. Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage,
/// 130 stopped by Ctrl-C, 143 by SIGTERM. RHO_DEBUG=1 adds the stack trace of a failure.
/// </summary>
internal static class CommandLine
{
    private const int Failed = 1, WrongUsage = 2;

    public static RootCommand Create()
    {
        var root = new RootCommand("Rho trains language models on the tokens that matter (selective language modeling).")
        {
            QuickstartCommand.Create(),
            TokenizerCommand.Create(),
            TokenizeCommand.Create(),
            CorpusCommand.Create(),
            TrainCommand.Create(),
            TrainerCommand.Create(),
            ScorerCommand.Create(),
            ScoreCommand.Create(),
            ServeCommand.Create(),
            GenerateCommand.Create(),
            ConcentrateCommand.Create(),
            DynamicsCommand.Create(),
            DoctorCommand.Create(),
        };
        foreach (var option in root.Options.OfType<HelpOption>()) option.Action = new HelpWithExamples();
        return root;
    }

    public static async Task<int> RunAsync(string[] args, Interruption interruption)
    {
        var root = Create();
        var result = root.Parse(args.Length == 0 ? ["--help"] : args);
        if ((result.Errors.Count > 0 && result.Action is ParseErrorAction or null) || UsageProblem.OptionTakenForFile(result) is not null)
        {
            await Console.Error.WriteLineAsync(UsageProblem.Describe(result));
            return WrongUsage;
        }

        try
        {
            return await result.InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null }, interruption.Token);
        }
        catch (OperationCanceledException) when (interruption.Token.IsCancellationRequested)
        {
            return interruption.ExitCode;
        }
        catch (Exception exception)
        {
            await Console.Error.WriteLineAsync(Explain(exception));
            return Failed;
        }
    }

    private static string Explain(Exception exception)
    {
        if (Environment.GetEnvironmentVariable("RHO_DEBUG") == "1") return exception.ToString();
        return exception switch
        {
            RhoException or IOException or UnauthorizedAccessException => $"rho: {OneLine(exception.Message)}",
            _ => $"rho: {OneLine(exception.Message)} (unexpected {exception.GetType().Name}; RHO_DEBUG=1 shows where)",
        };
    }

    private static string OneLine(string text) => string.Join(' ', text.Split('\n', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries));

    /// <summary>The usual help, then the command's examples.</summary>
    private sealed class HelpWithExamples : SynchronousCommandLineAction
    {
        private readonly HelpAction usual = new();

        public override int Invoke(ParseResult parseResult)
        {
            var code = usual.Invoke(parseResult);
            if (parseResult.CommandResult.Command is ExampleCommand { Examples: { Count: > 0 } examples })
            {
                var output = parseResult.InvocationConfiguration.Output;
                output.WriteLine("Examples:");
                foreach (var example in examples) output.WriteLine($"  {example}");
                output.WriteLine();
            }

            return code;
        }
    }
}

/// <summary>A command whose help ends with examples.</summary>
internal sealed class ExampleCommand(string name, string description, params IReadOnlyList<string> examples) : Command(name, description)
{
    public IReadOnlyList<string> Examples { get; } = examples;
}

/// <summary>What is wrong with a command line, in one line.</summary>
internal static class UsageProblem
{
    public static string Describe(ParseResult result)
    {
        var command = result.CommandResult.Command;
        var help = $"see {Path(result.CommandResult)} --help";
        if ((result.UnmatchedTokens.Count > 0 ? result.UnmatchedTokens[0] : OptionTakenForFile(result)) is { } token)
        {
            var isOption = token.StartsWith('-');
            var known = isOption
                ? Visible(result.CommandResult).SelectMany(option => option.Aliases.Prepend(option.Name)).Where(name => name.StartsWith("--", StringComparison.Ordinal))
                : command.Subcommands.Select(subcommand => subcommand.Name);
            var nearest = Nearest(token, [.. known]);
            var what = isOption ? "option" : command.Subcommands.Count > 0 ? "command" : "argument";
            return $"rho: unknown {what} '{token}'{(nearest is null ? "" : $"; did you mean '{nearest}'?")} ({help})";
        }

        if (command.Subcommands.Count > 0 && command.Action is null)
            return $"rho: {Path(result.CommandResult)} needs one of: {string.Join(", ", command.Subcommands.Select(subcommand => subcommand.Name))} ({help})";
        var message = result.Errors[0].Message.TrimEnd('.');
        foreach (var (type, meaning) in TypeNames) message = message.Replace($" as expected type 'System.{type}'", $": {meaning} is expected", StringComparison.Ordinal);
        return $"rho: {message} ({help})";
    }

    private static readonly (string Type, string Meaning)[] TypeNames = [("Int32", "a whole number"), ("Int64", "a whole number"), ("Nullable`1[System.Int64]", "a whole number"), ("Nullable`1[System.Int32]", "a whole number"), ("Double", "a number"), ("Nullable`1[System.Double]", "a number")];

    /// <summary>A mistyped option that a command which takes files would look for as a file; null where -- says that files follow.</summary>
    public static string? OptionTakenForFile(ParseResult result) =>
        result.Tokens.Any(token => token.Type == TokenType.DoubleDash)
            ? null
            : result.CommandResult.Children.OfType<ArgumentResult>().SelectMany(argument => argument.Tokens).FirstOrDefault(token => token.Value.Length > 1 && token.Value[0] == '-')?.Value;

    private static IEnumerable<Option> Visible(CommandResult command)
    {
        foreach (var option in command.Command.Options) yield return option;
        for (var parent = command.Parent as CommandResult; parent is not null; parent = parent.Parent as CommandResult)
        {
            foreach (var option in parent.Command.Options.Where(option => option.Recursive)) yield return option;
        }
    }

    private static string Path(CommandResult command)
    {
        var names = new List<string>();
        for (var at = command; at is not null; at = at.Parent as CommandResult) names.Insert(0, at.Command is RootCommand ? "rho" : at.Command.Name);
        return string.Join(' ', names);
    }

    /// <summary>The candidate with the fewest edits, if those are few for its length.</summary>
    internal static string? Nearest(string token, IReadOnlyCollection<string> candidates)
    {
        var best = candidates.Select(candidate => (candidate, edits: Edits(token, candidate))).OrderBy(pair => pair.edits).FirstOrDefault();
        return best.candidate is not null && best.edits <= Math.Max(1, best.candidate.TrimStart('-').Length / 3) ? best.candidate : null;
    }

    // Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours count one each.
    private static int Edits(string a, string b)
    {
        var distance = new int[a.Length + 1, b.Length + 1];
        for (var i = 0; i <= a.Length; i++)
        {
            for (var j = 0; j <= b.Length; j++)
            {
                if (i == 0 || j == 0)
                {
                    distance[i, j] = i + j;
                    continue;
                }

                var least = Math.Min(Math.Min(distance[i - 1, j], distance[i, j - 1]) + 1, distance[i - 1, j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1));
                if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) least = Math.Min(least, distance[i - 2, j - 2] + 1);
                distance[i, j] = least;
            }
        }

        return distance[a.Length, b.Length];
    }
}

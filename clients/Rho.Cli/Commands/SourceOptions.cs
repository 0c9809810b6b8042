using System.CommandLine;
using Rho.Data;

namespace Rho.Cli.Commands;

/// <summary>Text _files, and how documents are read from them.</summary>
internal sealed class SourceOptions
{
    private readonly Argument<string[]> _files = new("FILE") { Description = "Text files, folders or globs: .txt, .jsonl, .json, .csv, .tsv, each plain, .gz or .zst", Arity = ArgumentArity.OneOrMore };
    private readonly Option<string> _field = new("--field") { Description = "Field or column with the text", HelpName = "NAME", DefaultValueFactory = _ => "text" };
    private readonly Option<string?> _template = new("--template") { Description = "Text made of several fields, such as '{question}\\n{answer}'", HelpName = "TEXT" };
    private readonly Option<string?> _separator = new("--separator") { Description = "What stands between documents of a .txt file; without it a file is one document", HelpName = "TEXT" };

    /// <summary>How many records that cannot be read are skipped before the work fails.</summary>
    public Option<int> MaxBad { get; } = new("--max-bad") { Description = "Records that cannot be read and are skipped before giving up", HelpName = "N", DefaultValueFactory = _ => 10 };

    public void AddTo(Command command)
    {
        command.Add(_files);
        foreach (var option in (Option[])[_field, _template, _separator, MaxBad]) command.Add(option);
    }

    public CorpusSource Read(ParseResult result) => new()
    {
        Paths = result.GetValue(_files)!,
        Field = result.GetValue(_field)!,
        Template = result.GetValue(_template),
        Separator = result.GetValue(_separator)?.Replace("\\n", "\n", StringComparison.Ordinal).Replace("\\t", "\t", StringComparison.Ordinal),
    };
}

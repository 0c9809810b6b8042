using System.CommandLine;
using Rho.Data;

namespace Rho.Cli.Commands;

/// <summary>Text files, and how documents are read from them; or a file that describes a mixture of such sources.</summary>
internal sealed class SourceOptions
{
    private static readonly Dictionary<string, SourceFormat> Formats = new(StringComparer.Ordinal)
    {
        ["text"] = SourceFormat.Text,
        ["jsonl"] = SourceFormat.JsonLines,
        ["json"] = SourceFormat.Json,
        ["csv"] = SourceFormat.Csv,
        ["tsv"] = SourceFormat.Tsv,
    };

    private readonly Argument<string[]> _files = new("FILE") { Description = "Text files, folders or globs: .txt, .jsonl, .json, .csv, .tsv, each plain, .gz or .zst", Arity = ArgumentArity.ZeroOrMore };
    private readonly Option<string?> _mixture = new("--mixture") { Description = "JSON file with an array of sources (paths, weight, epochs, field, template, messages, separator, format) instead of FILE", HelpName = "JSON" };
    private readonly Option<string?> _format = new("--format") { Description = "What the files hold, whatever their names: text, jsonl, json, csv, tsv", HelpName = "KIND" };
    private readonly Option<string> _field = new("--field") { Description = "Field or column with the text", HelpName = "NAME", DefaultValueFactory = _ => "text" };
    private readonly Option<string?> _template = new("--template") { Description = "Text made of several fields, such as '{question}\\n{answer}'", HelpName = "TEXT" };
    private readonly Option<string?> _messages = new("--messages") { Description = "Field with a conversation, usually messages, for the tokenizer's chat template", HelpName = "NAME" };
    private readonly Option<int> _epochs = new("--epochs") { Description = "How often the files are read", HelpName = "N", DefaultValueFactory = _ => 1 };
    private readonly Option<string?> _separator = new("--separator") { Description = "What stands between documents of a .txt file; without it a file is one document", HelpName = "TEXT" };

    public SourceOptions() => _format.AcceptOnlyFromAmong([.. Formats.Keys]);

    /// <summary>How many records that cannot be read are skipped before the work fails.</summary>
    public Option<int> MaxBad { get; } = new("--max-bad") { Description = "Records that cannot be read and are skipped before giving up", HelpName = "N", DefaultValueFactory = _ => 10 };

    /// <param name="command">gets the files and these options</param>
    /// <param name="corpus">whether a corpus is built: conversations and epochs make sense</param>
    public void AddTo(Command command, bool corpus = false)
    {
        command.Add(_files);
        Option[] own = corpus ? [_format, _field, _template, _messages, _separator, _epochs] : [_format, _field, _template, _separator];
        foreach (var option in (Option[])[_mixture, .. own, MaxBad]) command.Add(option);
        command.Validators.Add(result =>
        {
            var files = result.GetValue(_files) is { Length: > 0 };
            if (result.GetValue(_mixture) is null == !files) result.AddError("name what to read: files, or --mixture");
            else if (!files && Array.Find(own, option => result.GetResult(option) is { Implicit: false }) is { } option) result.AddError($"{option.Name} goes with files; in a mixture each source says how it is read");
        });
    }

    public IReadOnlyList<CorpusSource> Read(ParseResult result) => result.GetValue(_mixture) is { } mixture
        ? CorpusSource.LoadAll(mixture)
        :
        [
            new CorpusSource
            {
                Paths = result.GetValue(_files)!,
                Format = result.GetValue(_format) is { } format ? Formats[format] : SourceFormat.Auto,
                Field = result.GetValue(_field)!,
                Template = result.GetValue(_template),
                Messages = result.GetValue(_messages),
                Separator = result.GetValue(_separator)?.Replace("\\n", "\n", StringComparison.Ordinal).Replace("\\t", "\t", StringComparison.Ordinal),
                Epochs = result.GetValue(_epochs),
            },
        ];
}

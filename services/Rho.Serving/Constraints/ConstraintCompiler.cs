using System.Text.Json;
using Rho.Serving.Tools;

namespace Rho.Serving.Constraints;

/// <summary>Makes constraints for one model's vocabulary, and keeps the latest, with all that was computed for them. Safe for many threads.</summary>
public sealed class ConstraintCompiler
{
    private const int MostSource = 64 << 10;
    private const int MostKept = 32;

    private readonly Lock _lock = new();
    private readonly Lazy<VocabularyTrie> _vocabulary;
    private readonly Dictionary<string, GrammarConstraint> _kept = new(StringComparer.Ordinal);

    /// <param name="bytesOf">A token's bytes; none for tokens that have no text.</param>
    /// <param name="ends">Tokens that end a text.</param>
    public ConstraintCompiler(int vocabularySize, Func<int, ReadOnlyMemory<byte>> bytesOf, IReadOnlyCollection<int> ends) =>
        _vocabulary = new Lazy<VocabularyTrie>(() => new VocabularyTrie(vocabularySize, bytesOf, ends));

    /// <summary>Texts that match a regular expression wholly.</summary>
    /// <param name="field">The request's field, for errors.</param>
    /// <exception cref="InvalidFieldException">The expression is broken or uses something that is not supported.</exception>
    public TextConstraint Regex(string pattern, string field) => Make("regex", pattern, field, table => RegexParser.Parse(table, pattern));

    /// <summary>JSON texts of a schema.</summary>
    /// <exception cref="InvalidFieldException">The schema is broken or uses something that is not supported.</exception>
    public TextConstraint JsonSchema(string schema, string field) => Make("schema", schema, field, table =>
    {
        try
        {
            using var json = JsonDocument.Parse(schema);
            return JsonSchemaCompiler.Compile(table, json.RootElement);
        }
        catch (JsonException exception)
        {
            throw new RhoException("it is no JSON", exception);
        }
        catch (InvalidOperationException exception)
        {
            throw new RhoException("a keyword of the schema has a value of the wrong type", exception);
        }
    });

    /// <summary>Any JSON object.</summary>
    public TextConstraint JsonObject(string field) => Make("object", "", field, JsonSchemaCompiler.AnyObject);

    /// <summary>A call of one of the functions, or several calls, in the model's form.</summary>
    internal TextConstraint ToolCalls(ToolSet tools, string field) => Make("calls", ToolCallGrammar.Describe(tools), field, table => ToolCallGrammar.Compile(table, tools));

    private GrammarConstraint Make(string kind, string source, string field, Func<ExpressionTable, Expression> compile)
    {
        if (source.Length > MostSource) throw new InvalidFieldException(field, $"it has {source.Length} characters; {MostSource} is the most");
        var key = $"{kind}\n{source}";
        lock (_lock)
        {
            if (_kept.TryGetValue(key, out var known) && !known.IsWorn) return known;
        }

        var table = new ExpressionTable();
        Expression language;
        try
        {
            language = compile(table);
        }
        catch (RhoException exception)
        {
            throw new InvalidFieldException(field, exception.Message);
        }

        if (language == table.Nothing) throw new InvalidFieldException(field, "no text conforms to it");
        var constraint = new GrammarConstraint(_vocabulary.Value, table, language);
        lock (_lock)
        {
            if (_kept.Count >= MostKept) _kept.Clear();
            _kept[key] = constraint;
        }

        return constraint;
    }
}

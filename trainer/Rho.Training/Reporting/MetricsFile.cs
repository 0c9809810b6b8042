using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace Rho.Training;

/// <summary>metrics.jsonl: every event as one line, named by its "event" field, in snake_case.</summary>
public sealed class MetricsFile : IDisposable
{
    public const string FileName = "metrics.jsonl";

    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals, // A broken model's held-out loss.
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower) },
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private static readonly Dictionary<string, Type> Types = new(StringComparer.Ordinal)
    {
        ["run_started"] = typeof(RunStarted),
        ["step"] = typeof(StepFinished),
        ["evaluation"] = typeof(EvaluationFinished),
        ["checkpoint"] = typeof(CheckpointWritten),
        ["warning"] = typeof(RunWarning),
        ["run_ended"] = typeof(RunEnded),
    };

    private readonly AppendLog _file;

    /// <summary>Opens the file to go on after <paramref name="step"/>: what a run that was cut off wrote beyond it goes away.</summary>
    internal MetricsFile(string directory, long step)
    {
        var path = Path.Combine(directory, FileName);
        if (File.Exists(path)) Truncate(path, step);
        _file = AppendLog.Open(path);
    }

    /// <summary>Why lines are still in memory; null where all are in the file.</summary>
    internal string? Problem => _file.Problem;

    internal void Write(TrainingEvent e) => _file.Write(Encoding.UTF8.GetBytes(ToJson(e) + "\n"));

    /// <summary>An event as a line of the file.</summary>
    public static string ToJson(TrainingEvent e)
    {
        var fields = JsonSerializer.SerializeToNode(e, e.GetType(), Json)!.AsObject();
        var line = new JsonObject { ["event"] = Name(e), ["step"] = e.Step };
        foreach (var (name, value) in fields.ToList())
        {
            if (name == "step") continue;
            fields.Remove(name);
            line[name] = value;
        }

        return line.ToJsonString(Json);
    }

    /// <summary>The events in a run's folder, in order; none where there is no file. A line that was cut off is passed over.</summary>
    public static IEnumerable<TrainingEvent> Read(string directory)
    {
        var path = Path.Combine(directory, FileName);
        if (!File.Exists(path)) yield break;
        using var file = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete));
        while (file.ReadLine() is { } line)
            if (Parse(line) is { } e) yield return e;
    }

    private static TrainingEvent? Parse(string line)
    {
        try
        {
            return JsonNode.Parse(line) is JsonObject fields && fields["event"]?.GetValue<string>() is { } name && Types.TryGetValue(name, out var type)
                ? (TrainingEvent?)fields.Deserialize(type, Json)
                : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }

    private static string Name(TrainingEvent e) => Types.First(type => type.Value == e.GetType()).Key;

    private static void Truncate(string path, long step)
    {
        var lines = File.ReadLines(path).Where(line => line.Length > 0 && IsUpTo(line, step)).ToList();
        AtomicFile.WriteText(path, lines.Count == 0 ? "" : string.Join('\n', lines) + "\n");
    }

    private static bool IsUpTo(string line, long step)
    {
        try
        {
            return JsonNode.Parse(line)?["step"]?.GetValue<long>() <= step;
        }
        catch (JsonException)
        {
            return false; // The last line of a run that was killed while it wrote.
        }
    }

    public void Dispose() => _file.Dispose();
}

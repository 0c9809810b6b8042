using System.Text.Json;
using System.Text.Json.Serialization;

namespace Rho.Training.Service;

internal enum ManagedState
{
    Queued,
    Starting,
    Running,
    Finished,
    Stopped,
    Failed,
}

/// <summary>What outlives the service of a run, beside the run's own files: service.json in its folder.</summary>
internal sealed record RunRecord
{
    public const string FileName = "service.json";

    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower) },
        RespectRequiredConstructorParameters = true,
        RespectNullableAnnotations = true,
        WriteIndented = true,
    };

    public required string Id { get; init; }

    public required DateTimeOffset Created { get; init; }

    /// <summary>Whether it is to run: a restarted service takes up what was wanted.</summary>
    public required bool Wanted { get; init; }

    public required ManagedState State { get; init; }

    /// <summary>The run file with absolute paths, for a run that had not started when the service ended.</summary>
    public required string RunFile { get; init; }

    public string? Error { get; init; }

    public string? Model { get; init; }

    public static RunRecord? Load(string directory)
    {
        try
        {
            return JsonSerializer.Deserialize<RunRecord>(File.ReadAllText(Path.Combine(directory, FileName)), Json);
        }
        catch (Exception e) when (e is IOException or JsonException or UnauthorizedAccessException)
        {
            return null; // Not a folder of this service's.
        }
    }

    public void Save(string directory) => AtomicFile.WriteText(Path.Combine(directory, FileName), JsonSerializer.Serialize(this, Json) + "\n");
}

/// <summary>A run that the service knows. Guarded by its own lock; the work runs on a task of its own.</summary>
internal sealed class ManagedRun(string directory, RunRecord record)
{
    private readonly Lock _lock = new();
    private RunRecord _record = record;

    public string Id { get; } = record.Id;

    public string Directory => directory;

    public RunRecord Record
    {
        get
        {
            lock (_lock) return _record;
        }
    }

    /// <summary>The run at work; null while it is queued or over.</summary>
    public TrainingRun? Current { get; set; }

    /// <summary>Ends the work.</summary>
    public CancellationTokenSource? Stop { get; set; }

    /// <summary>The work from queue to end; completed while there is none.</summary>
    public Task Work { get; set; } = Task.CompletedTask;

    /// <summary>What ended the last work, if it failed.</summary>
    public Exception? Failure { get; set; }

    public RunStarted? Started { get; private set; }

    public StepFinished? LastStep { get; private set; }

    public EvaluationFinished? LastEvaluation { get; private set; }

    /// <summary>Changes what is remembered of the run, on disk first.</summary>
    public void Update(Func<RunRecord, RunRecord> change)
    {
        lock (_lock)
        {
            var changed = change(_record);
            changed.Save(directory);
            _record = changed;
        }
    }

    public void Note(TrainingEvent e)
    {
        if (e is RunStarted started) Started = started;
        if (e is StepFinished step) LastStep = step;
        if (e is EvaluationFinished evaluation) LastEvaluation = evaluation;
    }
}

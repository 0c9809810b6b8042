using Rho.Hosting;

namespace Rho.Training.Service;

/// <summary>Settings of the training service; <see cref="Validate"/> says what is wrong with them.</summary>
public sealed record TrainingServiceOptions
{
    /// <summary>Ports, TLS, keys, telemetry, drain. A stopping service writes a checkpoint of each run, so its drain takes a while.</summary>
    public RhoHostOptions Host { get; init; } = new() { Service = "rho-trainer", GrpcPort = 50052, DrainTimeout = TimeSpan.FromMinutes(5) };

    /// <summary>Folder of the runs, one folder each.</summary>
    public required string Runs { get; init; }

    /// <summary>What relative paths in run files are relative to; the folder of the runs where null.</summary>
    public string? Data { get; init; }

    /// <summary>How many runs are at work at a time; others wait in a queue. Default 1.</summary>
    public int MaxConcurrentRuns { get; init; } = 1;

    /// <exception cref="RhoException">One line that names every wrong setting.</exception>
    public void Validate()
    {
        var errors = new List<string>();
        if (Runs.Length == 0) errors.Add("runs must name a folder");
        if (MaxConcurrentRuns < 1) errors.Add($"max concurrent runs must be at least 1, not {MaxConcurrentRuns}");
        if (Data != null && !Directory.Exists(Data)) errors.Add($"data folder {Data} does not exist");
        if (errors.Count > 0) throw new RhoException("trainer settings: " + string.Join("; ", errors));
    }
}

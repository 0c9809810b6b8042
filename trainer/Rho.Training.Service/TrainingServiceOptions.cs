using System.ComponentModel;
using Rho.Hosting;

namespace Rho.Training.Service;

/// <summary>Settings of the training service; <see cref="Validate"/> says what is wrong with them.</summary>
public sealed record TrainingServiceOptions
{
    /// <summary>Ports, TLS, keys, telemetry, drain. A stopping service writes a checkpoint of each run, so its drain takes a while.</summary>
    public RhoHostOptions Host { get; init; } = new() { Service = "rho-trainer", GrpcPort = 5003, DrainTimeout = TimeSpan.FromMinutes(5) };

    [Description("Folder of the runs, one folder each")]
    public required string Runs { get; init; }

    [Description("What relative paths in run files are relative to; the folder of the runs without it")]
    public string? Data { get; init; }

    [Description("Runs at work at a time; others wait")]
    public int MaxConcurrentRuns { get; init; } = 1;

    /// <exception cref="RhoException">One line that names every wrong setting.</exception>
    public void Validate()
    {
        var errors = new List<string>();
        if (Runs.Length == 0) errors.Add("runs must name a folder");
        if (MaxConcurrentRuns < 1) errors.Add($"max concurrent runs must be at least 1, not {MaxConcurrentRuns}");
        if (Data is not null && !Directory.Exists(Data)) errors.Add($"data folder {Data} does not exist");
        if (errors.Count > 0) throw new RhoException("trainer settings: " + string.Join("; ", errors));
    }
}

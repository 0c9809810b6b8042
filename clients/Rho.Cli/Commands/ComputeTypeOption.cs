using System.CommandLine;
using Rho.Training;

namespace Rho.Cli.Commands;

/// <summary>The type in which a command computes losses: by default that of the run whose checkpoints they are, as others pick other tokens.</summary>
internal static class ComputeTypeOption
{
    public static Option<ComputePrecision?> Create() => new("--dtype")
    {
        Description = "Type of the products: auto (bfloat16 where the device has it), float32 or bfloat16; that of the run where a checkpoint lies in a run's folder, else auto, where absent",
    };

    /// <param name="checkpoints">Folders; of those that lie in a run's folder, the last one's run is asked.</param>
    public static ComputeSection Read(ParseResult result, Option<ComputePrecision?> option, IReadOnlyList<string> checkpoints) => new()
    {
        Precision = result.GetValue(option) ?? checkpoints.Select(RunFile.OfCheckpoint).LastOrDefault(run => run is not null)?.Compute.Precision ?? ComputePrecision.Auto,
    };
}

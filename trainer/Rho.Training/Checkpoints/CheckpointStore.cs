using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.RegularExpressions;
using Rho.Formats;
using Rho.Tokenization;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Training;

/// <summary>
/// The checkpoints of a run: folders step-00000100 with model/ (a Hugging Face folder), optimizer.safetensors and state.json. A folder
/// is written under another name, flushed and renamed, so that one with its own name is whole; its checksums are verified on load.
/// </summary>
internal sealed partial class CheckpointStore(string directory, CheckpointSection options)
{
    private const string Prefix = "step-";
    private const string StateFile = "state.json";
    private const string TensorFile = "optimizer.safetensors";
    private const string ModelFolder = "model";
    private const int ChunkElements = 1 << 24;

    public string Directory => directory;

    /// <summary>Writes a checkpoint and takes away what is not to be kept. Returns its folder.</summary>
    /// <exception cref="RhoException">Writing failed, such as on a full disk; older checkpoints are as they were.</exception>
    public string Write(CheckpointSnapshot snapshot, Tokenizer tokenizer)
    {
        var path = PathOf(snapshot.State.Step);
        var temporary = AtomicFile.TemporaryPath(Path.Combine(directory, Path.GetFileName(path)));
        try
        {
            System.IO.Directory.CreateDirectory(temporary);
            snapshot.Model.Save(Path.Combine(temporary, ModelFolder), tokenizer);
            WriteTensors(Path.Combine(temporary, TensorFile), snapshot.Tensors);
            var files = System.IO.Directory.EnumerateFiles(temporary, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)
                .ToDictionary(file => Path.GetRelativePath(temporary, file), Describe, StringComparer.Ordinal);
            AtomicFile.WriteText(Path.Combine(temporary, StateFile), JsonSerializer.Serialize(snapshot.State with { Files = files }, CheckpointState.Json) + "\n");
            AtomicFile.FlushDirectory(Path.Combine(temporary, ModelFolder));
            AtomicFile.FlushDirectory(temporary);
            if (System.IO.Directory.Exists(path)) System.IO.Directory.Delete(path, recursive: true); // A broken one of the same step, from before a resume.
            System.IO.Directory.Move(temporary, path);
            AtomicFile.FlushDirectory(directory);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or RhoException)
        {
            Discard(temporary);
            throw new RhoException($"checkpoint of step {snapshot.State.Step} cannot be written: {TemporaryMark().Replace(e.Message, "")}", e);
        }

        Prune();
        return path;
    }

    /// <summary>The newest whole checkpoint; null where there is none. Broken ones are passed over with a warning.</summary>
    public string? Newest(Action<string> warn)
    {
        foreach (var (_, path) in List().OrderByDescending(entry => entry.Step))
        {
            try
            {
                Verify(path);
                return path;
            }
            catch (RhoException e)
            {
                warn($"{e.Message}; taking the checkpoint before it");
            }
        }

        return null;
    }

    /// <summary>Copies a checkpoint's tensors into the run's.</summary>
    public static void Restore(string path, CheckpointState state, StepRunner runner)
    {
        using var guard = no_grad();
        using var file = SafetensorsFile.Open(Path.Combine(path, TensorFile));
        foreach (var (name, values) in CheckpointSnapshot.Named(runner))
        {
            var entry = file.Tensor(name);
            if (entry.Type != ElementType.F32 || entry.Shape is not [var count] || count != values.NumberOfElements)
                throw new MismatchException($"{path}: tensor {entry} does not fit a model of {values.NumberOfElements} parameters");
            Read(file, name, values);
        }

        runner.Optimizer.Steps = state.OptimizerSteps;
        runner.Ratio.State = state.Ratio;
        runner.Model.WeightsChanged();
    }

    /// <summary>The folder of a checkpoint's model.</summary>
    public static string ModelOf(string path) => Path.Combine(path, ModelFolder);

    /// <summary>Takes away what a run that was cut off left half-written.</summary>
    public void Clean()
    {
        if (!System.IO.Directory.Exists(directory)) return;
        foreach (var left in System.IO.Directory.EnumerateDirectories(directory, $"{Prefix}*.tmp")) Discard(left);
    }

    /// <exception cref="CorruptDataException">The checkpoint has no readable state.json.</exception>
    public static CheckpointState StateOf(string path)
    {
        try
        {
            var state = JsonSerializer.Deserialize<CheckpointState>(File.ReadAllText(Path.Combine(path, StateFile)), CheckpointState.Json) ?? throw new JsonException("it is null");
            return state.Format == CheckpointState.CurrentFormat ? state : throw new CorruptDataException($"{path}: format is \"{state.Format}\", to be \"{CheckpointState.CurrentFormat}\"");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            throw new CorruptDataException($"{path}: not a whole checkpoint: {e.Message}");
        }
    }

    private static void Verify(string path)
    {
        foreach (var (name, expected) in StateOf(path).Files)
        {
            try
            {
                if (Describe(Path.Combine(path, name)) == expected) continue;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new CorruptDataException($"{path}: {name} cannot be read: {e.Message}");
            }

            throw new CorruptDataException($"{path}: {name} does not have the checksum it was written with: it was changed or damaged");
        }
    }

    private void Prune()
    {
        var entries = List().OrderByDescending(entry => entry.Step).ToList();
        var best = options.KeepBestBy is null ? null : Best(entries);
        foreach (var (_, path) in entries.Skip(options.KeepLast))
            if (path != best) Discard(path);
    }

    private string? Best(List<(long Step, string Path)> entries)
    {
        (double Loss, string? Path) best = (double.PositiveInfinity, null);
        foreach (var (_, path) in entries)
        {
            try
            {
                if (StateOf(path).Evaluation is { } losses && losses.TryGetValue(options.KeepBestBy!, out var loss) && loss < best.Loss) best = (loss, path);
            }
            catch (CorruptDataException)
            {
                // One that cannot be read is not the best.
            }
        }

        return best.Path;
    }

    private IEnumerable<(long Step, string Path)> List()
    {
        if (!System.IO.Directory.Exists(directory)) yield break;
        foreach (var path in System.IO.Directory.EnumerateDirectories(directory, $"{Prefix}*"))
            if (long.TryParse(Path.GetFileName(path).AsSpan(Prefix.Length), NumberStyles.None, null, out var step)) yield return (step, path);
    }

    private string PathOf(long step) => Path.Combine(directory, $"{Prefix}{step:D8}");

    /// <summary>What <see cref="AtomicFile.TemporaryPath"/> adds to a name: nothing that a reader of messages knows.</summary>
    [GeneratedRegex(@"\.\d+-[0-9a-f]{32}\.tmp", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex TemporaryMark();

    private static CheckpointFile Describe(string path)
    {
        using var stream = File.OpenRead(path);
        return new CheckpointFile(stream.Length, Convert.ToHexStringLower(SHA256.HashData(stream)));
    }

    private static void WriteTensors(string path, IReadOnlyList<(string Name, Tensor Values)> tensors)
    {
        using var writer = SafetensorsWriter.Create(path, tensors.Select(tensor => (tensor.Name, ElementType.F32, new[] { tensor.Values.NumberOfElements })));
        foreach (var (name, values) in tensors)
        {
            for (long start = 0; start < values.NumberOfElements; start += ChunkElements)
            {
                using var part = values.narrow(0, start, Math.Min(ChunkElements, values.NumberOfElements - start));
                writer.Write(name, start * sizeof(float), part.bytes);
            }
        }

        writer.Complete();
    }

    private static void Read(SafetensorsFile file, string name, Tensor values)
    {
        for (long start = 0; start < values.NumberOfElements; start += ChunkElements)
        {
            using var scope = NewDisposeScope();
            var count = (int)Math.Min(ChunkElements, values.NumberOfElements - start);
            var staging = empty([count], ScalarType.Float32);
            file.Bytes(name, start * sizeof(float), count * sizeof(float)).CopyTo(staging.bytes);
            values.narrow(0, start, count).copy_(staging);
        }
    }

    private static void Discard(string path)
    {
        try
        {
            System.IO.Directory.Delete(path, recursive: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // What cannot be removed has a name that nothing reads.
        }
    }
}

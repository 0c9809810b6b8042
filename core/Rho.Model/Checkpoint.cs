using System.Text.Json;
using System.Text.Json.Nodes;
using Rho.Formats;
using Rho.Formats.Torch;
using Rho.Tokenization;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>Hugging Face checkpoint folders: read tensor by tensor into the model's own memory, written beside their place and renamed.</summary>
internal static class Checkpoint
{
    /// <summary>Bytes converted at a time, so that loading needs little more than the model itself.</summary>
    private const int ChunkBytes = 16 << 20;

    /// <summary>What holds weights, best first. The same names with .index.json behind them list the files of a checkpoint in several.</summary>
    private static readonly (string Name, Func<string, ITensorFile> Open)[] s_formats = [("model.safetensors", SafetensorsFile.Open), ("pytorch_model.bin", TorchFile.Open)];

    internal static void Read(string directory, LanguageModel model)
    {
        using var guard = no_grad();
        var (files, open) = WeightFiles(directory);
        HashSet<string> seen = [];
        foreach (var path in files)
        {
            using var file = open(path);
            foreach (var entry in file.Tensors.Values)
            {
                var name = entry.Name;
                if (name.EndsWith("rotary_emb.inv_freq", StringComparison.Ordinal)) continue;
                if (!model.Layout.Contains(name))
                {
                    if (name == "lm_head.weight" && model.Config.TiedEmbeddings) continue;
                    throw new RhoException($"{path}: the tensor {name} has no place in a {model.Config.ModelType} model with {model.Config.Layers} layers as config.json describes it");
                }

                var span = model.Layout[name];
                if (!entry.Shape.AsSpan().SequenceEqual(span.Shape))
                    throw new RhoException($"{path}: the tensor {name} has shape [{string.Join(", ", entry.Shape)}], config.json asks for [{string.Join(", ", span.Shape)}]");
                Fill(file, entry, model, span);
                seen.Add(name);
            }
        }

        var missing = model.Layout.Spans.Where(span => !seen.Contains(span.Name)).Select(span => span.Name).ToList();
        if (missing.Count > 0)
            throw new RhoException($"{directory}: {missing.Count} tensor(s) are missing, the first is {missing[0]}");
    }

    private static (IReadOnlyList<string> Paths, Func<string, ITensorFile> Open) WeightFiles(string directory)
    {
        foreach (var (name, open) in s_formats)
        {
            var single = Path.Combine(directory, name);
            if (File.Exists(single)) return ([single], open);
            if (File.Exists(single + ".index.json")) return (ReadIndex(directory, single + ".index.json"), open);
        }

        throw new NotFoundException($"{directory} has no weights: neither {string.Join(" nor ", s_formats.SelectMany(format => new[] { format.Name, format.Name + ".index.json" }))} is there");
    }

    private static List<string> ReadIndex(string directory, string index)
    {
        try
        {
            var map = JsonNode.Parse(File.ReadAllText(index))!["weight_map"]!.AsObject();
            var names = map.Select(pair => pair.Value!.GetValue<string>()).Distinct().Order(StringComparer.Ordinal).ToList();
            foreach (var name in names)
            {
                if (name != Path.GetFileName(name)) throw new RhoException($"{index} names {name}, which is not a file of its folder");
                if (!File.Exists(Path.Combine(directory, name))) throw new NotFoundException($"{index} names {name}, which is missing");
            }

            return [.. names.Select(name => Path.Combine(directory, name))];
        }
        catch (Exception error) when (error is JsonException or NullReferenceException or InvalidOperationException)
        {
            throw new RhoException($"{index} is broken: {error.Message.Split('\n')[0]}", error);
        }
    }

    private static void Fill(ITensorFile file, TensorEntry entry, LanguageModel model, ParameterSpan span)
    {
        var dtype = entry.Type switch
        {
            ElementType.F32 => ScalarType.Float32,
            ElementType.F16 => ScalarType.Float16,
            ElementType.BF16 => ScalarType.BFloat16,
            ElementType.F64 => ScalarType.Float64,
            _ => throw new RhoException($"{file.Path}: the tensor {entry.Name} has elements of type {entry.Type.Name()}; supported: F32, F16, BF16, F64"),
        };
        var size = entry.Type.Size();
        for (long start = 0; start < entry.ByteLength; start += ChunkBytes)
        {
            using var scope = NewDisposeScope();
            var bytes = (int)Math.Min(ChunkBytes, entry.ByteLength - start);
            var target = model.Slice(span.Offset + (start / size), bytes / size);
            if (dtype == target.dtype && target.device_type == TorchSharp.DeviceType.CPU)
            {
                file.Read(entry.Name, start, target.bytes);
                continue;
            }

            var staging = empty([bytes / size], dtype);
            file.Read(entry.Name, start, staging.bytes);
            target.copy_(staging);
        }
    }

    internal static void Write(string directory, LanguageModel model, Tokenizer? tokenizer, long shardBytes)
    {
        using var guard = no_grad();
        directory = Path.GetFullPath(directory);
        if (File.Exists(directory) || (Directory.Exists(directory) && Directory.EnumerateFileSystemEntries(directory).Any()))
            throw new RhoException($"{directory} exists already; choose another folder or remove it");
        var temporary = AtomicFile.TemporaryPath(directory);
        try
        {
            Directory.CreateDirectory(temporary);
            var dtype = model.Dtype == ScalarType.BFloat16 ? "bfloat16" : "float32";
            WriteWeights(temporary, model, shardBytes);
            File.WriteAllText(Path.Combine(temporary, "config.json"), model.Config.ToJson(dtype).ToJsonString(s_indented) + "\n");
            var generation = new JsonObject();
            if (model.Config.BosTokenId is { } bos) generation["bos_token_id"] = bos;
            if (model.Config.EosTokenJson() is { } eos) generation["eos_token_id"] = eos;
            File.WriteAllText(Path.Combine(temporary, "generation_config.json"), generation.ToJsonString(s_indented) + "\n");
            tokenizer?.Save(temporary);
            AtomicFile.FlushDirectory(temporary);
            if (Directory.Exists(directory)) Directory.Delete(directory);
            Directory.Move(temporary, directory);
        }
        catch (Exception error)
        {
            if (Directory.Exists(temporary)) Directory.Delete(temporary, recursive: true);
            if (error is IOException or UnauthorizedAccessException) throw new RhoException($"the checkpoint {directory} could not be written: {error.Message}", error);
            throw;
        }
    }

    private static readonly JsonSerializerOptions s_indented = new() { WriteIndented = true };

    private static void WriteWeights(string directory, LanguageModel model, long shardBytes)
    {
        var (type, size) = model.Dtype == ScalarType.BFloat16 ? (ElementType.BF16, 2) : (ElementType.F32, 4);
        List<List<ParameterSpan>> shards = [[]];
        long bytes = 0;
        foreach (var span in model.Layout.Spans)
        {
            if (bytes > 0 && bytes + (span.Count * size) > shardBytes)
            {
                shards.Add([]);
                bytes = 0;
            }

            shards[^1].Add(span);
            bytes += span.Count * size;
        }

        var map = new JsonObject();
        for (var i = 0; i < shards.Count; i++)
        {
            var name = shards.Count == 1 ? "model.safetensors" : $"model-{i + 1:00000}-of-{shards.Count:00000}.safetensors";
            using var writer = SafetensorsWriter.Create(Path.Combine(directory, name), shards[i].Select(span => (span.Name, type, span.Shape)),
                new Dictionary<string, string> { ["format"] = "pt" });
            foreach (var span in shards[i])
            {
                map[span.Name] = name;
                for (long start = 0; start < span.Count; start += ChunkBytes / size)
                {
                    using var scope = NewDisposeScope();
                    using var part = model.Slice(span.Offset + start, Math.Min(ChunkBytes / size, span.Count - start)).cpu();
                    writer.Write(span.Name, start * size, part.bytes);
                }
            }

            writer.Complete();
        }

        if (shards.Count > 1)
        {
            var index = new JsonObject { ["metadata"] = new JsonObject { ["total_size"] = model.Parameters * size }, ["weight_map"] = map };
            File.WriteAllText(Path.Combine(directory, "model.safetensors.index.json"), index.ToJsonString(s_indented) + "\n");
        }
    }
}

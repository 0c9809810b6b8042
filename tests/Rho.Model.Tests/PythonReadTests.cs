using System.Security.Cryptography;
using Rho.TestSupport;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

/// <summary>What Save writes, as another program reads it: Python that follows the published layout, of files and of the index.</summary>
public sealed class PythonReadTests : IDisposable
{
    private const string Script = """
        import hashlib, json, os, struct, sys
        folder = sys.argv[1]
        index = os.path.join(folder, "model.safetensors.index.json")
        if os.path.exists(index):
            files = json.load(open(index))["weight_map"]
        else:
            files = None
        tensors = {}
        for file in sorted(set(files.values())) if files else ["model.safetensors"]:
            raw = open(os.path.join(folder, file), "rb").read()
            n = struct.unpack("<Q", raw[:8])[0]
            header = json.loads(raw[8:8 + n])
            assert header.pop("__metadata__") == {"format": "pt"}
            for name, entry in header.items():
                assert files is None or files[name] == file
                start, end = entry["data_offsets"]
                tensors[name] = (entry["dtype"], entry["shape"], hashlib.sha256(raw[8 + n + start:8 + n + end]).hexdigest())
        assert files is None or set(files) == set(tensors)
        config = json.load(open(os.path.join(folder, "config.json")))
        print(config["architectures"][0], config["torch_dtype"])
        for name in sorted(tensors):
            print(name, *tensors[name])
        """;

    private readonly string _folder = Directory.CreateTempSubdirectory("rho-checkpoint-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("llama", "LlamaForCausalLM", ComputeType.Float32, 5_000_000_000)]
    [InlineData("qwen2", "Qwen2ForCausalLM", ComputeType.Float32, 9_000)]
    [InlineData("qwen3", "Qwen3ForCausalLM", ComputeType.BFloat16, 9_000)]
    [InlineData("mistral", "MistralForCausalLM", ComputeType.BFloat16, 5_000_000_000)]
    public async Task Save_AnyShards_PythonReadsEveryTensor(string kind, string architecture, ComputeType compute, long shardBytes)
    {
        await DebianPython.NeedAsync();
        using var model = LanguageModel.Load(Path.Combine(NumericsTests.Data, kind), CPU, compute);
        var copy = Path.Combine(_folder, "copy");
        model.Save(copy, tokenizer: null, shardBytes);
        var (dtype, type) = compute == ComputeType.Float32 ? ("float32", "F32") : ("bfloat16", "BF16");
        var expected = new List<string> { $"{architecture} {dtype}" };
        foreach (var span in model.Layout.Spans.OrderBy(span => span.Name, StringComparer.Ordinal))
            expected.Add($"{span.Name} {type} [{string.Join(", ", span.Shape)}] {Convert.ToHexStringLower(SHA256.HashData(model.Flat.narrow(0, span.Offset, span.Count).bytes))}");
        Assert.Equal(expected, (await DebianPython.RunAsync(["-c", Script, copy])).Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }
}

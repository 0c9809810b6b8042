using System.Text.Json.Nodes;
using Rho.Formats;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

public sealed class CheckpointTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("rho-checkpoint-").FullName;

    [Theory, InlineData("llama"), InlineData("llama-tied"), InlineData("mistral"), InlineData("qwen2"), InlineData("qwen3"), InlineData("llama-yarn"), InlineData("llama3")]
    public void Save_ThenLoad_GivesTheSameModel(string kind)
    {
        var copy = Path.Combine(_folder, "copy");
        using var original = LanguageModel.Load(Path.Combine(NumericsTests.Data, kind), CPU, ComputeType.Float32);
        original.Save(copy, tokenizer: null);
        using var loaded = LanguageModel.Load(copy, CPU, ComputeType.Float32);
        Assert.Equal(original.Config, loaded.Config);
        Assert.True(original.Flat.bytes.SequenceEqual(loaded.Flat.bytes));
    }

    [Theory]
    [InlineData("llama", "whole")]
    [InlineData("llama-tied", "sharded")]
    public void Load_PyTorchFiles_GivesTheSameModel(string kind, string files)
    {
        using var expected = LanguageModel.Load(Path.Combine(NumericsTests.Data, kind), CPU, ComputeType.Float32);
        File.Copy(Path.Combine(NumericsTests.Data, kind, "config.json"), Path.Combine(_folder, "config.json"));
        foreach (var file in Directory.GetFiles(Path.Combine(AppContext.BaseDirectory, "torch", files))) File.Copy(file, Path.Combine(_folder, Path.GetFileName(file)));
        using var loaded = LanguageModel.Load(_folder, CPU, ComputeType.Float32);
        Assert.True(expected.Flat.bytes.SequenceEqual(loaded.Flat.bytes));
    }

    [Fact]
    public void Save_InShards_GivesTheSameModelAndAnIndexOfEveryTensor()
    {
        using var original = LanguageModel.Load(Path.Combine(NumericsTests.Data, "qwen3"), CPU, ComputeType.Float32);
        var copy = Path.Combine(_folder, "copy");
        original.Save(copy, tokenizer: null, shardBytes: 10_000);
        Assert.False(File.Exists(Path.Combine(copy, "model.safetensors")));
        var index = JsonNode.Parse(File.ReadAllText(Path.Combine(copy, "model.safetensors.index.json")))!;
        Assert.Equal(original.Parameters * 4, (long)index["metadata"]!["total_size"]!);
        var map = index["weight_map"]!.AsObject().ToDictionary(pair => pair.Key, pair => (string)pair.Value!);
        var shards = Directory.GetFiles(copy, "*.safetensors").Order(StringComparer.Ordinal).ToArray();
        Assert.Equal(Enumerable.Range(1, shards.Length).Select(i => $"model-{i:00000}-of-{shards.Length:00000}.safetensors"), shards.Select(Path.GetFileName));
        Assert.InRange(shards.Length, 3, map.Count);
        foreach (var path in shards)
        {
            using var shard = SafetensorsFile.Open(path);
            Assert.True(shard.Tensors.Count == 1 || shard.Tensors.Values.Sum(tensor => tensor.ByteLength) <= 10_000);
            Assert.Equal("pt", shard.Metadata["format"]);
            foreach (var name in shard.Tensors.Keys) Assert.Equal(Path.GetFileName(path), Assert.Contains(name, (IDictionary<string, string>)map));
        }

        using var loaded = LanguageModel.Load(copy, CPU, ComputeType.Float32);
        Assert.True(original.Flat.bytes.SequenceEqual(loaded.Flat.bytes));
        File.Delete(shards[1]);
        Assert.Contains(Path.GetFileName(shards[1]), Assert.Throws<NotFoundException>(() => LanguageModel.Load(copy, CPU, ComputeType.Float32)).Message);
    }

    [Fact]
    public void Load_TruncatedWeights_NamesTheFile()
    {
        var path = Path.Combine(Copy("llama"), "model.safetensors");
        using (var file = File.OpenWrite(path)) file.SetLength(file.Length - 100);
        var error = Assert.Throws<RhoException>(() => LanguageModel.Load(_folder, CPU, ComputeType.Float32));
        Assert.Contains("model.safetensors", error.Message);
    }

    [Fact]
    public void Load_WrongShape_NamesTheTensorAndBothShapes()
    {
        Copy("llama");
        Edit("\"intermediate_size\": 40", "\"intermediate_size\": 48");
        var error = Assert.Throws<RhoException>(() => LanguageModel.Load(_folder, CPU, ComputeType.Float32));
        Assert.Contains("mlp.gate_proj.weight has shape [40, 24], config.json asks for [48, 24]", error.Message);
    }

    [Fact]
    public void Load_MissingTensors_NamesTheFirst()
    {
        Copy("llama");
        Edit("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
        var error = Assert.Throws<RhoException>(() => LanguageModel.Load(_folder, CPU, ComputeType.Float32));
        Assert.Contains("model.layers.2.", error.Message);
    }

    [Theory]
    [InlineData("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "hidden_act")]
    [InlineData("\"model_type\": \"llama\"", "\"model_type\": \"mamba\"", "mamba")]
    [InlineData("\"hidden_act\": \"silu\"", "\"hidden_act\": \"silu\", \"logit_softcap\": 3", "logit_softcap")]
    [InlineData("\"hidden_act\": \"silu\"", "\"hidden_act\": \"silu\", \"rope_scaling\": {\"rope_type\": \"longrope\"}", "longrope")]
    [InlineData("\"hidden_act\": \"silu\"", "\"hidden_act\": \"silu\", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"mscale\": 1}", "rope_scaling.mscale")]
    [InlineData("\"hidden_act\": \"silu\"", "\"hidden_act\": \"silu\", \"rope_scaling\": {\"rope_type\": \"default\", \"mrope_section\": [1, 2]}", "rope_scaling.mrope_section")]
    [InlineData("\"hidden_act\": \"silu\"", "\"hidden_act\": \"silu\", \"attention_bias\": true", "attention_bias")]
    [InlineData("\"hidden_act\": \"silu\"", "\"hidden_act\": \"silu\", \"partial_rotary_factor\": 0.5", "partial_rotary_factor")]
    [InlineData("\"hidden_act\": \"silu\"", "\"hidden_act\": \"silu\", \"quantization_config\": {\"bits\": 4}", "quantization_config")]
    [InlineData("\"hidden_act\": \"silu\"", "\"hidden_act\": \"silu\", \"rope_interleaved\": true", "rope_interleaved")]
    [InlineData("\"hidden_act\": \"silu\"", "\"hidden_act\": \"silu\", \"layer_types\": [\"full_attention\", \"sliding_attention\"]", "layer_types")]
    [InlineData("\"rope_theta\": 10000.0", "\"rope_theta\": \"large\"", "rope_theta is \"large\"")]
    public void Load_WhatIsNotSupported_IsRefusedByName(string find, string replace, string name)
    {
        Copy("llama");
        Edit(find, replace);
        Assert.Contains(name, Assert.Throws<RhoException>(() => LanguageModel.Load(_folder, CPU, ComputeType.Float32)).Message);
    }

    [Fact]
    public void Load_NoSuchFolder_SaysSo() =>
        Assert.Contains("no checkpoint folder at", Assert.Throws<NotFoundException>(() => LanguageModel.Load(Path.Combine(_folder, "nothing"), CPU, ComputeType.Float32)).Message);

    [Fact]
    public void Save_WhereSomethingStands_IsRefused()
    {
        Copy("llama");
        using var model = LanguageModel.Load(_folder, CPU, ComputeType.Float32);
        Assert.Contains("exists already", Assert.Throws<RhoException>(() => model.Save(_folder, null)).Message);
    }

    private string Copy(string kind)
    {
        foreach (var file in Directory.GetFiles(Path.Combine(NumericsTests.Data, kind))) File.Copy(file, Path.Combine(_folder, Path.GetFileName(file)));
        return _folder;
    }

    private void Edit(string find, string replace)
    {
        var path = Path.Combine(_folder, "config.json");
        var text = File.ReadAllText(path);
        Assert.Contains(find, text);
        File.WriteAllText(path, text.Replace(find, replace));
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}

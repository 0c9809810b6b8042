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

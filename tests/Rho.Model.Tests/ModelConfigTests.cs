using System.Text.Json.Nodes;

namespace Rho.Model.Tests;

/// <summary>Configurations as published models have them.</summary>
public sealed class ModelConfigTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("rho-config-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("llama-1", 6_738_415_616)]
    [InlineData("tinyllama", 1_100_048_384)]
    [InlineData("llama-3.1", 8_030_261_248)]
    [InlineData("mistral-v0.1", 7_241_732_096)]
    [InlineData("qwen2", 7_615_616_512)]
    [InlineData("qwen3", 596_049_920)]
    [InlineData("smollm2", 134_515_008)]
    public void Load_PublishedConfiguration_HasThePublishedNumberOfParametersAndComesBackAsSaved(string name, long parameters)
    {
        File.Copy(Path.Combine(AppContext.BaseDirectory, "configs", $"{name}.json"), Path.Combine(_folder, "config.json"));
        var config = ModelConfig.Load(_folder);
        Assert.Equal(parameters, new ParameterLayout(config).Count);
        File.WriteAllText(Path.Combine(_folder, "config.json"), config.ToJson("bfloat16").ToJsonString());
        Assert.Equal(config, ModelConfig.Load(_folder));
    }

    [Theory]
    [InlineData("llama", 4, 6, null)]
    [InlineData("mistral", 8, 4, 4096)]
    [InlineData("qwen2", 32, 4, null)]
    [InlineData("qwen3", 32, 128, null)]
    public void Load_WithoutFields_TakesTheDefaultsOfTheType(string type, int keyValueHeads, int headSize, int? window)
    {
        var heads = keyValueHeads == 4 ? 4 : 32;
        var json = new JsonObject
        {
            ["model_type"] = type,
            ["vocab_size"] = 10,
            ["hidden_size"] = heads * (type == "llama" ? 6 : 2),
            ["intermediate_size"] = 8,
            ["num_hidden_layers"] = 1,
            ["num_attention_heads"] = heads,
        };
        if (type is "mistral" or "qwen2") json["head_dim"] = headSize;
        File.WriteAllText(Path.Combine(_folder, "config.json"), json.ToJsonString());
        var config = ModelConfig.Load(_folder);
        Assert.Equal((keyValueHeads, headSize, window), (config.KeyValueHeads, config.HeadSize, config.SlidingWindow));
    }
}

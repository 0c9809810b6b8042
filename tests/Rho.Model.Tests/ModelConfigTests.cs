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
    [InlineData("gemma-2-2b", 2_614_341_888)]
    [InlineData("gemma-3-1b", 999_885_952)]
    [InlineData("olmo-2-1b", 1_484_916_736)]
    [InlineData("smollm3", 3_075_098_624)]
    [InlineData("phi-3-mini-4k", 3_821_079_552)]
    [InlineData("phi-4-mini", 3_836_021_760)]
    [InlineData("mixtral-8x7b", 46_702_792_704)]
    [InlineData("qwen3-30b-a3b", 30_532_122_624)]
    public void Load_PublishedConfiguration_HasThePublishedNumberOfParametersAndComesBackAsSaved(string name, long parameters)
    {
        File.Copy(Path.Combine(AppContext.BaseDirectory, "configs", $"{name}.json"), Path.Combine(_folder, "config.json"));
        var config = ModelConfig.Load(_folder);
        Assert.Equal(parameters, new Network(config).Layout.Count);
        File.WriteAllText(Path.Combine(_folder, "config.json"), config.ToJson("bfloat16").ToJsonString());
        Assert.Equal(config, ModelConfig.Load(_folder));
    }

    /// <summary>Published as 12.9 B of 46.7 B, 3.3 B of 30.5 B, and all of it.</summary>
    [Theory]
    [InlineData("mixtral-8x7b", 12_879_925_248)]
    [InlineData("qwen3-30b-a3b", 3_353_032_704)]
    [InlineData("llama-1", 6_738_415_616)]
    public void ActiveParameters_OfMixtures_AreThoseThatATokenTakes(string name, long active)
    {
        File.Copy(Path.Combine(AppContext.BaseDirectory, "configs", $"{name}.json"), Path.Combine(_folder, "config.json"));
        Assert.Equal(active, new Network(ModelConfig.Load(_folder)).ActiveParameters);
    }

    [Fact]
    public void Load_SeveralEndTokens_AreAllKeptAndWritten()
    {
        File.Copy(Path.Combine(AppContext.BaseDirectory, "configs", "llama-3.1.json"), Path.Combine(_folder, "config.json"));
        var config = ModelConfig.Load(_folder);
        Assert.Equal(128001, config.EosTokenId);
        Assert.Equal([128008, 128009], config.OtherEosTokenIds);
        Assert.Equal("[128001,128008,128009]", config.ToJson("float32")["eos_token_id"]!.ToJsonString());
    }

    [Theory]
    [InlineData("\"max_window_layers\": 28", null)]
    [InlineData("\"max_window_layers\": 0", 131072)]
    [InlineData("\"layer_types\": [\"sliding_attention\", \"sliding_attention\"]", 131072)]
    [InlineData("\"layer_types\": [\"full_attention\", \"full_attention\"], \"max_window_layers\": 0", null)]
    public void Load_QwenWithWindow_TakesItWhereEveryLayerHasIt(string fields, int? window)
    {
        var text = File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "configs", "qwen2.json"))
            .Replace("\"use_sliding_window\": false", "\"use_sliding_window\": true", StringComparison.Ordinal)
            .Replace("\"max_window_layers\": 28", fields, StringComparison.Ordinal);
        File.WriteAllText(Path.Combine(_folder, "config.json"), text);
        Assert.Equal(window, ModelConfig.Load(_folder).SlidingWindow);
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

namespace Rho.Training.Tests;

public class RunFileTests
{
    private const string Smallest = """
        { "output": "runs/a", "model": { "from": "base" }, "data": { "corpora": [ { "path": "web" } ] }, "steps": 10, "schedule": { "learning_rate": 1e-4 } }
        """;

    private static string Error(string json) => Assert.ThrowsAny<RhoException>(() => RunFile.Parse(json, "/base")).Message;

    [Fact]
    public void Parse_SmallestFile_HasThePapersDefaults()
    {
        var run = RunFile.Parse(Smallest, "/base");
        Assert.Equal("/base/runs/a", run.Output);
        Assert.Equal("a", run.Name);
        Assert.Equal("/base/base", run.Model.From);
        Assert.Equal("/base/web", run.Data.Corpora[0].Path);
        Assert.Equal((0.9, 0.95, 0.1, 1.0), (run.Optimizer.Beta1, run.Optimizer.Beta2, run.Optimizer.WeightDecay, run.Optimizer.Clip));
        Assert.Equal((0.6, ObjectiveScope.MicroBatch), (run.Objective.Ratio, run.Objective.Scope));
    }

    [Fact]
    public void Parse_CommentsAndTrailingCommas_AreFine() => Assert.Equal(3, RunFile.Parse("""
        {
          "output": "a", // here
          "model": { "from": "base", }, /* continued */
          "data": { "corpora": [ { "path": "web" }, ] },
          "schedule": { "learning_rate": 1e-4 },
          "steps": 3, // few
        }
        """, "/base").Steps);

    [Fact]
    public void ToJson_ParsedAgain_IsTheSame()
    {
        var run = RunFile.Parse(Smallest, "/base");
        Assert.Equal(run.ToJson(), RunFile.Parse(run.ToJson(), "/elsewhere").ToJson());
    }

    [Theory]
    [InlineData("\"steps\": 10", "\"steps\": \"ten\"", "steps is \"ten\", to be a whole number")]
    [InlineData("\"steps\": 10", "\"steps\": 0", "steps is 0, to be at least 1")]
    [InlineData("\"steps\": 10", "\"steps\": 1.5", "steps is 1.5, to be a whole number")]
    [InlineData("\"steps\": 10", "\"seed\": 3", "steps is missing")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"tokens\": 5", "steps and tokens are both given")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"stepps\": 5", "stepps is not known; the file has name, output")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"batch\": { \"sequence\": 5 }", "batch.sequence is not known; batch has sequences, accumulation")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"objective\": { \"kind\": \"slm2\" }", "objective.kind is \"slm2\", to be \"clm\" or \"slm\"")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"objective\": { \"kind\": \"slm\", \"ratio\": 0 }", "objective.ratio is 0, to be above 0 and at most 1")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"objective\": { \"kind\": \"slm\" }", "reference.sources is empty")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"objective\": { \"selector\": { \"top_k\": 8 } }", "objective.selector.top_k goes with by \"divergence\"")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"objective\": { \"selector\": { \"by\": \"divergence\", \"top_k\": 0 } }", "objective.selector.top_k is 0, to be at least 1")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"objective\": { \"kind\": \"slm\", \"selector\": { \"by\": \"divergence\" } }", "reference.sources is empty")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"objective\": { \"kind\": \"slm\", \"selector\": { \"by\": \"divergence\" } }, \"reference\": { \"sources\": [ { \"scores\": \"a\" }, { \"scores\": \"b\" } ] }", "reference.sources has 2, and the most likely tokens of their mixture cannot be had from theirs")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"objective\": { \"kind\": \"slm\", \"selector\": { \"by\": \"reference_entropy\" } }, \"reference\": { \"sources\": [ { \"scores\": \"a\" }, { \"scores\": \"b\" } ] }", "reference.sources has 2, and the entropy of their mixture")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"objective\": { \"kind\": \"slm\", \"selector\": { \"any_of\": [ { \"by\": \"divergence\" }, { \"by\": \"divergence\", \"top_k\": 9 } ] } }", "parts of different top_k")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"reference\": { \"sources\": [ { \"scorers\": [\"a:1\"], \"scores\": \"b\" } ] }", "reference.sources[0] is to have one of")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"optimizer\": { \"clip\": -1 }", "optimizer.clip is -1, to be at least 0")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"compute\": { \"device\": \"tpu\" }", "compute.device is \"tpu\"")]
    [InlineData("\"steps\": 10", "\"steps\": 10, \"checkpoints\": { \"keep_best_by\": \"math\" }", "checkpoints.keep_best_by is \"math\"")]
    [InlineData("\"path\": \"web\"", "\"path\": 5", "data.corpora[0].path is 5, to be a text")]
    [InlineData("{ \"path\": \"web\" }", "", "data.corpora is empty")]
    [InlineData("{ \"path\": \"web\" }", "{ }", "data.corpora[0].path is missing")]
    [InlineData("\"learning_rate\": 1e-4", "", "schedule.learning_rate is missing")]
    [InlineData("\"from\": \"base\"", "", "model.from is missing")]
    [InlineData("\"from\": \"base\"", "\"config\": { \"hidden_size\": 30, \"layers\": 1, \"heads\": 4 }", "model.tokenizer is missing")]
    [InlineData("\"from\": \"base\"", "\"tokenizer\": \"t\", \"config\": { \"hidden_size\": 30, \"layers\": 1, \"heads\": 4 }", "model.config.heads is 4, which does not divide hidden_size 30")]
    [InlineData("\"output\": \"runs/a\"", "\"output\": null", "output is null, to be a text")]
    [InlineData("\"output\": \"runs/a\",", "", "output is missing")]
    public void Parse_WrongField_IsNamed(string part, string replacement, string expected) =>
        Assert.Contains(expected, Error(Smallest.Replace(part, replacement, StringComparison.Ordinal)), StringComparison.Ordinal);

    [Fact]
    public void Parse_SeveralErrors_AreAllNamed()
    {
        var error = Error("""{ "output": 1, "model": {}, "data": [], "steps": -1 }""");
        foreach (var field in new[] { "output is 1", "data is a list", "steps is -1", "schedule is missing" }) Assert.Contains(field, error, StringComparison.Ordinal);
    }

    [Fact]
    public void Parse_BrokenJson_SaysWhere() => Assert.Contains("line 2, column", Error("{\n \"output\": }"), StringComparison.Ordinal);

    [Fact]
    public void Load_MissingFile_SaysSo() => Assert.Contains("no such run file", Assert.Throws<NotFoundException>(() => RunFile.Load("/nowhere/run.json")).Message, StringComparison.Ordinal);

    [Fact]
    public void OfCheckpoint_FindsTheRunItLiesIn()
    {
        using var world = new World();
        var run = world.Run("out", "corpus") with { Compute = new ComputeSection { Precision = ComputePrecision.Bfloat16 } };
        Directory.CreateDirectory(world.At("out/checkpoints/step-00000004"));
        Directory.CreateDirectory(world.At("out/final"));
        File.WriteAllText(world.At("out/run.json"), run.ToJson());
        Assert.Equal(ComputePrecision.Bfloat16, RunFile.OfCheckpoint(world.At("out/checkpoints/step-00000004"))!.Compute.Precision);
        Assert.Equal(ComputePrecision.Bfloat16, RunFile.OfCheckpoint(world.At("out/final/"))!.Compute.Precision);
        Assert.Null(RunFile.OfCheckpoint(world.At("elsewhere/model")));
    }

    [Fact]
    public void Schema_IsCurrent() =>
        // To renew it: RHO_WRITE_SCHEMA=$PWD/trainer/run.schema.json ./rho test Schema_IsCurrent
        Assert.Equal(Schema(), File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "run.schema.json")));

    private static string Schema()
    {
        var schema = RunSchema.Generate();
        if (Environment.GetEnvironmentVariable("RHO_WRITE_SCHEMA") is { } path) File.WriteAllText(path, schema);
        return schema;
    }
}

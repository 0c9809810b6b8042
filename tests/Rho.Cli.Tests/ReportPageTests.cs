using Rho.Cli.Quickstart;

namespace Rho.Cli.Tests;

public class ReportPageTests
{
    [Fact]
    public void Render_Summary_IsSelfContained()
    {
        var html = ReportPage.Render(Summary(clmLoss: 1.2, slmLoss: 0.9), Page());
        Assert.DoesNotContain("http://", html, StringComparison.Ordinal);
        Assert.DoesNotContain("https://", html, StringComparison.Ordinal);
        Assert.DoesNotContain("src=", html, StringComparison.Ordinal);
        Assert.Contains("<polyline class=\"slm\"", html, StringComparison.Ordinal);
        Assert.Contains("<polyline class=\"clm\"", html, StringComparison.Ordinal);
    }

    [Fact]
    public void Render_TokensWithMarkup_AreEscaped()
    {
        var html = ReportPage.Render(Summary(1.2, 0.9), [new PageToken("<script>", null, true, 1, 2)]);
        Assert.Contains("&lt;script&gt;", html, StringComparison.Ordinal);
        Assert.DoesNotContain("<script>", html, StringComparison.Ordinal);
    }

    [Fact]
    public void Render_Answers_AreMarkedRightAndWrong()
    {
        var html = ReportPage.Render(Summary(1.2, 0.9), Page());
        Assert.Contains("<td class=\"wrong\">✗ 43.</td><td class=\"right\">✓ 42.</td>", html, StringComparison.Ordinal);
        Assert.Contains("CLM answered 0 right, SLM 1.", html, StringComparison.Ordinal);
    }

    [Fact]
    public void ReachesClmAfter_BetweenTwoEvaluations_IsOnTheStraightLine()
    {
        var summary = Summary(1.2, 0.9);
        var slm = summary.Runs[1] with { Curve = [new(0, 3), new(300_000, 1.5), new(600_000, 0.9)] };
        Assert.Equal((300_000 + (300_000 * (1.5 - 1.2) / (1.5 - 0.9))) / 900_000, (summary with { Runs = [summary.Runs[0], slm] }).ReachesClmAfter!.Value, 12);
        Assert.Null((summary with { Runs = [summary.Runs[0], slm with { Curve = [new(0, 3), new(900_000, 1.3)] }] }).ReachesClmAfter);
    }

    [Theory]
    [InlineData(1.2, 0.9, "SLM reached CLM")]
    [InlineData(0.9, 1.2, "did not beat")]
    public void Render_Headline_SaysWhichWasBetter(double clmLoss, double slmLoss, string expected) =>
        Assert.Contains(expected, ReportPage.Render(Summary(clmLoss, slmLoss), Page()), StringComparison.Ordinal);

    internal static QuickstartSummary Summary(double clmLoss, double slmLoss) => new()
    {
        Machine = "Example CPU, 2 cores",
        Seconds = 151.4,
        Stages = [new("data and tokenizer", 4.1), new("reference", 31), new("reference losses", 12), new("CLM", 42), new("SLM", 40), new("serving", 3)],
        Model = "llama, 4 layers, hidden 128",
        VocabularySize = 1024,
        Data = new(310_000, 900_000, 12_000, 0.46, new Dictionary<NoiseKind, double> { [NoiseKind.Boilerplate] = 0.12, [NoiseKind.Random] = 0.21, [NoiseKind.Typo] = 0.02, [NoiseKind.Unrelated] = 0.11 }),
        Reference = new(620_000, 0.71, 31),
        Scores = new(2, "redis", 900_000, 12),
        Runs = [Run("clm", 1, clmLoss, 1), Run("slm", 0.6, slmLoss, 0.21)],
        Asked = [new("Question: What is 12 + 30?\nAnswer:", "42.", new(" 43.", Right: false), new(" 42.", Right: true))],
    };

    internal static IReadOnlyList<PageToken> Page() =>
    [
        new("Subscribe", NoiseKind.Boilerplate, false, float.NaN, float.NaN), new(" now!\n", NoiseKind.Boilerplate, false, 2, 6),
        new("Question:", null, true, 1.5f, 0.4f), new(" What is", null, true, 0.8f, 0.3f), new(" 12", null, false, 3, 3.2f), new(" + ", null, true, 0.5f, 0.1f), new("30?\n", null, true, 2, 1.5f),
        new("xq9", NoiseKind.Random, false, 4, 9), new("k+\n", NoiseKind.Random, true, 5, 4.8f),
    ];

    private static RunSummary Run(string objective, double ratio, double loss, double noise) => new()
    {
        Objective = objective,
        Ratio = ratio,
        Tokens = 900_000,
        Seconds = 41,
        HeldOutLoss = loss,
        NoiseTrainedOn = noise,
        CleanTrainedOn = ratio < 1 ? 0.93 : 1,
        NoiseTrainedOnByKind = Enum.GetValues<NoiseKind>().ToDictionary(kind => kind, _ => noise),
        Curve = [.. Enumerable.Range(0, 10).Select(i => new CurvePoint(i * 100_000, loss + (5.5 * Math.Exp(-i * 0.7 / ratio))))],
    };
}

using System.Globalization;
using System.Text;

namespace Rho.Benchmarks.Experiment;

/// <summary>Held-out losses, nats per token by set, after so many tokens.</summary>
internal sealed record Point(long Tokens, IReadOnlyDictionary<string, double> Losses);

/// <summary>One variant's held-out losses over its run, for each seed.</summary>
internal sealed record Curve(Variant Variant, IReadOnlyList<List<Point>> Seeds);

/// <summary>The experiment as a table in Markdown, and as a plot.</summary>
internal static class ExperimentReport
{
    private static readonly CultureInfo s_culture = CultureInfo.InvariantCulture;
    private static readonly string[] s_colors = ["#000000", "#9ecae1", "#4292c6", "#08519c", "#6a51a3", "#999999", "#d94801"];

    /// <summary>Rows of the base, the reference and each variant: mean and standard deviation over seeds of the last held-out losses.</summary>
    public static string Markdown(ExperimentSettings settings, IReadOnlyList<(string Name, IReadOnlyList<Point> Seeds)> origins, IReadOnlyList<Curve> curves)
    {
        var sets = curves[0].Seeds[0][0].Losses.Keys.ToList();
        var curated = sets.SkipLast(1).ToList(); // The general set comes last.
        var text = new StringBuilder();
        text.AppendLine(s_culture, $"Held-out loss in nats per token, mean ± standard deviation over {settings.Seeds} seeds (each with its own base and reference); {settings.Hidden} hidden, {settings.Layers} layers, vocabulary {settings.Vocabulary}; base {settings.BaseTokens / 1e6:0.0} M tokens, reference {settings.ReferenceTokens / 1e6:0.0} M, every variant {settings.Tokens / 1e6:0.0} M. \"Reaches CLM\": share of the tokens after which the curated loss (mean of {string.Join(" and ", curated)}) is CLM's last one.");
        text.AppendLine();
        text.AppendLine($"| | {string.Join(" | ", sets)} | reaches CLM after |");
        text.AppendLine($"| --- |{string.Concat(sets.Select(_ => " ---: |"))} ---: |");
        foreach (var (name, seeds) in origins)
            text.AppendLine($"| {name} | {string.Join(" | ", sets.Select(set => Spread(seeds.Select(point => point.Losses[set]))))} | |");
        foreach (var curve in curves)
        {
            var last = curve.Seeds.Select(seed => seed[^1]);
            var reached = curve.Seeds.Select((seed, i) => Reaches(seed, curated, Mean(curves[0].Seeds[i][^1], curated))).ToList();
            var missed = reached.Count(share => share is null);
            var share = curve == curves[0] ? "100 %" : missed > 0 ? $"not within the run in {missed} of {reached.Count}" : $"{Spread(reached.Select(value => 100 * value!.Value), "0")} %";
            text.AppendLine($"| {curve.Variant.Description} | {string.Join(" | ", sets.Select(set => Spread(last.Select(point => point.Losses[set]))))} | {share} |");
        }

        return text.ToString();
    }

    /// <summary>Mean curated loss over tokens, one line a variant.</summary>
    public static string Plot(IReadOnlyList<Curve> curves)
    {
        const int width = 760, height = 420, left = 56, bottom = 44, top = 16, right = 210;
        var curated = curves[0].Seeds[0][0].Losses.Keys.SkipLast(1).ToList();
        var lines = curves.Select(curve => curve.Seeds[0].Select((point, i) => (Tokens: (double)point.Tokens, Loss: curve.Seeds.Average(seed => Mean(seed[i], curated)))).ToList()).ToList();
        var tokens = lines.Max(line => line[^1].Tokens);
        var (low, high) = (lines.Min(line => line.Min(point => point.Loss)), lines.Max(line => line.Max(point => point.Loss)));
        double X(double value) => left + ((width - left - right) * value / tokens);
        double Y(double value) => top + ((height - top - bottom) * (high - value) / (high - low));
        var svg = new StringBuilder();
        svg.AppendLine(s_culture, $"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">");
        svg.AppendLine("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>");
        for (var i = 0; i <= 4; i++)
        {
            var (loss, at) = (low + ((high - low) * i / 4), tokens * i / 4);
            svg.AppendLine(s_culture, $"<path d=\"M{left} {Y(loss):0.0}H{width - right}\" stroke=\"#ddd\"/><text x=\"{left - 8}\" y=\"{Y(loss) + 4:0.0}\" text-anchor=\"end\">{loss:0.00}</text><text x=\"{X(at):0.0}\" y=\"{height - bottom + 18}\" text-anchor=\"middle\">{at / 1e6:0.00} M</text>");
        }

        svg.AppendLine(s_culture, $"<text x=\"{(left + width - right) / 2}\" y=\"{height - 8}\" text-anchor=\"middle\">tokens read</text><text x=\"{left}\" y=\"{top - 4}\">curated held-out loss, nats per token</text>");
        for (var i = 0; i < lines.Count; i++)
        {
            var color = s_colors[i % s_colors.Length];
            svg.AppendLine(s_culture, $"<path d=\"M{string.Join('L', lines[i].Select(point => string.Create(s_culture, $"{X(point.Tokens):0.0} {Y(point.Loss):0.0}")))}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>");
            svg.AppendLine(s_culture, $"<path d=\"M{width - right + 16} {top + 8 + (20 * i)}h20\" stroke=\"{color}\" stroke-width=\"2\"/><text x=\"{width - right + 42}\" y=\"{top + 12 + (20 * i)}\">{curves[i].Variant.Description}</text>");
        }

        return svg.AppendLine("</svg>").ToString();
    }

    private static double Mean(Point point, IReadOnlyList<string> sets) => sets.Average(set => point.Losses[set]);

    /// <summary>Share of the run after which the loss first is as low as <paramref name="goal"/>, straight between two evaluations; null where it never is.</summary>
    private static double? Reaches(IReadOnlyList<Point> points, IReadOnlyList<string> sets, double goal)
    {
        for (var i = 1; i < points.Count; i++)
        {
            var (before, after) = (Mean(points[i - 1], sets), Mean(points[i], sets));
            if (after > goal) continue;
            var part = before > goal ? (before - goal) / (before - after) : 0;
            return (points[i - 1].Tokens + (part * (points[i].Tokens - points[i - 1].Tokens))) / points[^1].Tokens;
        }

        return null;
    }

    private static string Spread(IEnumerable<double> values, string format = "0.000")
    {
        var all = values.ToList();
        var mean = all.Average();
        if (all.Count == 1) return mean.ToString(format, s_culture);
        var deviation = Math.Sqrt(all.Sum(value => (value - mean) * (value - mean)) / (all.Count - 1));
        return $"{mean.ToString(format, s_culture)} ± {deviation.ToString(format, s_culture)}";
    }
}

using System.Globalization;
using System.Net;
using System.Text;

namespace Rho.Cli.Quickstart;

/// <summary>report.html: one file without links to others, readable in light and dark.</summary>
internal static class ReportPage
{
    private const int Width = 760, Height = 320, Left = 56, Right = 96, Top = 16, Bottom = 44;

    public static string Render(QuickstartSummary summary, IReadOnlyList<PageToken> page)
    {
        var clm = summary.Runs[0];
        var slm = summary.Runs[1];
        var html = new StringBuilder();
        html.Append($$"""
            <!doctype html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <title>Rho quickstart</title>
            <style>{{Style}}</style>
            </head>
            <body>
            <main>
            <header>
            <p class="eyebrow">Rho quickstart</p>
            <h1>{{Headline(summary)}}</h1>
            <p class="lead">Two equal models read the same {{Count(slm.Tokens)}} tokens of crawl-like text, of which {{Percent(summary.Data.NoiseShare)}} are noise.
            One trained on every token (CLM). The other trained on the {{Percent(slm.Ratio)}} of each batch with the highest excess loss over a reference (SLM).</p>
            </header>
            """);
        html.Append("\n<section class=\"tiles\">");
        Tile(html, "Held-out loss, SLM", Number(slm.HeldOutLoss), $"CLM {Number(clm.HeldOutLoss)}, reference {Number(summary.Reference.HeldOutLoss)} nats per token", "slm");
        Tile(html, "Noise trained on, SLM", Percent(slm.NoiseTrainedOn), $"CLM {Percent(clm.NoiseTrainedOn)} of all noise tokens", "slm");
        Tile(html, "Clean text trained on, SLM", Percent(slm.CleanTrainedOn), $"CLM {Percent(clm.CleanTrainedOn)} of all clean tokens", "slm");
        Tile(html, "Questions answered right, SLM", $"{summary.SlmRight} of {summary.Asked.Count}", $"CLM {summary.ClmRight} of {summary.Asked.Count}; none occurs in a training text", "slm");
        Tile(html, "Time for everything", Duration(summary.Seconds), summary.Machine, "");
        html.Append("</section>\n");

        html.Append("<section><h2>Held-out loss while training</h2>\n<p>Nats per token on clean problems that occur in no training text; lower is better.</p>\n");
        Chart(html, summary);
        RunTable(html, summary);
        html.Append("</section>\n");

        TextPage(html, page);
        Asked(html, summary);
        Stages(html, summary);
        html.Append("</main>\n</body>\n</html>\n");
        return html.ToString();
    }

    private static string Headline(QuickstartSummary summary) =>
        summary.Runs[1].HeldOutLoss >= summary.Runs[0].HeldOutLoss ? "In this run, training on selected tokens did not beat training on all of them"
        : summary.ReachesClmAfter is < 1 and var share ? $"SLM reached CLM’s final loss with {Percent(share)} of its tokens"
        : "SLM ended below CLM at equal tokens";

    private static void Tile(StringBuilder html, string label, string value, string note, string kind) =>
        html.Append($"<div class=\"tile {kind}\"><p>{Escape(label)}</p><strong>{Escape(value)}</strong><small>{Escape(note)}</small></div>");

    private static void Chart(StringBuilder html, QuickstartSummary summary)
    {
        var tokens = summary.Runs.Max(run => run.Tokens);
        var losses = summary.Runs.SelectMany(run => run.Curve).Select(point => point.HeldOutLoss).Append(summary.Reference.HeldOutLoss).Where(double.IsFinite).ToList();
        // The first steps, when every model learns what is most common, would flatten everything else: the axis shows the rest.
        var top = summary.Runs.SelectMany(run => run.Curve).Where(point => point.Tokens >= tokens / 5).Select(point => point.HeldOutLoss).Where(double.IsFinite).DefaultIfEmpty(losses.Max()).Max();
        var step = NiceStep((top - losses.Min()) / 4);
        var low = Math.Floor((losses.Min() - (step / 4)) / step) * step;
        var high = Math.Ceiling(top / step) * step;

        html.Append($"<figure><svg viewBox=\"0 0 {Width} {Height}\" role=\"img\" aria-label=\"Held-out loss against tokens for CLM and SLM\">\n");
        html.Append($"<clipPath id=\"plot\"><rect x=\"{Left}\" y=\"{Top}\" width=\"{Width - Left - Right}\" height=\"{Height - Top - Bottom}\"/></clipPath>\n");
        for (var value = low; value <= high + (step / 2); value += step)
            html.Append(CultureInfo.InvariantCulture, $"<line class=\"grid\" x1=\"{Left}\" x2=\"{Width - Right}\" y1=\"{Y(value):F1}\" y2=\"{Y(value):F1}\"/><text class=\"tick\" x=\"{Left - 8}\" y=\"{Y(value) + 4:F1}\" text-anchor=\"end\">{Tick(value, step)}</text>\n");
        var tokenStep = NiceStep(tokens / 5.0);
        for (var value = 0.0; value <= tokens; value += tokenStep)
            html.Append(CultureInfo.InvariantCulture, $"<text class=\"tick\" x=\"{X(value):F1}\" y=\"{Height - Bottom + 20}\" text-anchor=\"middle\">{Count((long)value)}</text>\n");
        html.Append($"<text class=\"tick\" x=\"{(Left + Width - Right) / 2}\" y=\"{Height - 6}\" text-anchor=\"middle\">tokens read</text>\n");

        var reference = Y(summary.Reference.HeldOutLoss);
        html.Append(CultureInfo.InvariantCulture, $"<line class=\"reference\" x1=\"{Left}\" x2=\"{Width - Right}\" y1=\"{reference:F1}\" y2=\"{reference:F1}\"/>\n");
        var labels = new List<(double Y, string Class, string Text)> { (reference, "reference", "reference") };
        foreach (var run in summary.Runs)
        {
            var points = run.Curve.Where(point => double.IsFinite(point.HeldOutLoss)).ToList();
            if (points.Count == 0) continue;
            var path = string.Join(' ', points.Select(point => string.Create(CultureInfo.InvariantCulture, $"{X(point.Tokens):F1},{Y(point.HeldOutLoss):F1}")));
            html.Append($"<g clip-path=\"url(#plot)\"><polyline class=\"{run.Objective}\" points=\"{path}\"/>\n");
            foreach (var point in points)
                html.Append(CultureInfo.InvariantCulture, $"<circle class=\"{run.Objective}\" cx=\"{X(point.Tokens):F1}\" cy=\"{Y(point.HeldOutLoss):F1}\" r=\"3.5\"><title>{run.Objective.ToUpperInvariant()}, {Count(point.Tokens)} tokens: {Number(point.HeldOutLoss)}</title></circle>\n");
            html.Append("</g>\n");
            labels.Add((Y(points[^1].HeldOutLoss), run.Objective, $"{run.Objective.ToUpperInvariant()} {Number(points[^1].HeldOutLoss)}"));
        }

        foreach (var (y, style, text) in Spread(labels))
            html.Append(CultureInfo.InvariantCulture, $"<text class=\"label {style}\" x=\"{Width - Right + 8}\" y=\"{y + 4:F1}\">{text}</text>\n");
        html.Append("</svg></figure>\n");

        double X(double value) => Left + ((Width - Left - Right) * value / tokens);
        double Y(double value) => Top + ((Height - Top - Bottom) * (high - value) / (high - low));
    }

    /// <summary>Moves labels apart so that none covers another.</summary>
    private static List<(double Y, string Class, string Text)> Spread(List<(double Y, string Class, string Text)> labels)
    {
        const double Gap = 17;
        labels.Sort((a, b) => a.Y.CompareTo(b.Y));
        for (var i = 1; i < labels.Count; i++)
        {
            if (labels[i].Y - labels[i - 1].Y < Gap) labels[i] = labels[i] with { Y = labels[i - 1].Y + Gap };
        }

        return labels;
    }

    private static void RunTable(StringBuilder html, QuickstartSummary summary)
    {
        html.Append("<table><thead><tr><th>Model</th><th>Tokens read</th><th>Loss on</th><th>Held-out loss</th><th>Noise trained on</th><th>Clean trained on</th><th>Training time</th></tr></thead><tbody>\n");
        html.Append($"<tr><td><i class=\"key reference\"></i>Reference, on curated text</td><td>{Count(summary.Reference.Tokens)}</td><td>100 %</td><td>{Number(summary.Reference.HeldOutLoss)}</td><td>none seen</td><td>100 %</td><td>{Duration(summary.Reference.Seconds)}</td></tr>\n");
        foreach (var run in summary.Runs)
            html.Append($"<tr><td><i class=\"key {run.Objective}\"></i>{run.Objective.ToUpperInvariant()}</td><td>{Count(run.Tokens)}</td><td>{Percent(run.Ratio)}</td><td>{Number(run.HeldOutLoss)}</td><td>{Percent(run.NoiseTrainedOn)}</td><td>{Percent(run.CleanTrainedOn)}</td><td>{Duration(run.Seconds)}</td></tr>\n");
        html.Append("</tbody></table>\n<table><thead><tr><th>Noise of the crawl</th><th>Share of its tokens</th>");
        foreach (var run in summary.Runs) html.Append($"<th>{run.Objective.ToUpperInvariant()} trained on</th>");
        html.Append("</tr></thead><tbody>\n");
        foreach (var (kind, share) in summary.Data.NoiseShareByKind.OrderBy(pair => pair.Key))
        {
            html.Append($"<tr><td>{Name(kind)}</td><td>{Percent(share)}</td>");
            foreach (var run in summary.Runs) html.Append($"<td>{Percent(run.NoiseTrainedOnByKind.GetValueOrDefault(kind))}</td>");
            html.Append("</tr>\n");
        }

        html.Append("</tbody></table>\n");
    }

    private static void TextPage(StringBuilder html, IReadOnlyList<PageToken> page)
    {
        html.Append("""
            <section><h2>What the selection picks</h2>
            <p>A stretch of the crawl as the finished SLM model sees it. <mark>Highlighted</mark> tokens are selected: they train the model.
            <span class="noise">Dotted</span> ones were made as noise by the generator, which the selection does not know. Point at a token for its losses.</p>
            <pre class="page">
            """);
        var selected = false;
        foreach (var token in page)
        {
            // One mark over neighbouring tokens, so that a selected stretch reads as one.
            if (token.Selected != selected) html.Append(token.Selected ? "<mark>" : "</mark>");
            selected = token.Selected;
            var title = float.IsNaN(token.Loss)
                ? "first of its sequence: no loss"
                : string.Create(CultureInfo.InvariantCulture, $"loss {token.Loss:F2}, reference {token.ReferenceLoss:F2}, excess {token.Loss - token.ReferenceLoss:F2}{(token.Noise is { } kind ? ", " + Name(kind) : "")}");
            html.Append($"<span{(token.Noise is null ? "" : " class=\"noise\"")} title=\"{title}\">{Escape(token.Text)}</span>");
        }

        html.Append(selected ? "</mark></pre></section>\n" : "</pre></section>\n");
    }

    private static void Asked(StringBuilder html, QuickstartSummary summary)
    {
        const int Open = 8;
        html.Append($"<section><h2>Both models, asked</h2>\n<p>The first {summary.Asked.Count} held-out problems, put to both models behind <code>/v1/completions</code>, greedily. The training texts have their facts, asked by others. CLM answered {summary.ClmRight} right, SLM {summary.SlmRight}.</p>\n");
        Rows(summary.Asked.Take(Open));
        if (summary.Asked.Count > Open)
        {
            html.Append($"<details><summary>The other {summary.Asked.Count - Open}</summary>\n");
            Rows(summary.Asked.Skip(Open));
            html.Append("</details>\n");
        }

        html.Append("</section>\n");

        void Rows(IEnumerable<Exchange> exchanges)
        {
            html.Append("<table class=\"asked\"><thead><tr><th>Question</th><th>Right</th><th>CLM</th><th>SLM</th></tr></thead><tbody>\n");
            foreach (var exchange in exchanges)
                html.Append(CultureInfo.InvariantCulture, $"<tr><td>{Escape(Question(exchange.Prompt))}</td><td>{Escape(exchange.Answer)}</td>{Cell(exchange.Clm)}{Cell(exchange.Slm)}</tr>\n");
            html.Append("</tbody></table>\n");
        }

        static string Question(string prompt) => prompt["Question: ".Length..prompt.LastIndexOf('\n')];
        static string Cell(Reply reply) => $"<td class=\"{(reply.Right ? "right" : "wrong")}\">{(reply.Right ? "✓" : "✗")} {Escape(reply.Text.Trim())}</td>";
    }

    private static void Stages(StringBuilder html, QuickstartSummary summary)
    {
        var longest = Math.Max(summary.Stages.Max(stage => stage.Seconds), 1e-3);
        html.Append("<section><h2>Where the time went</h2>\n<table class=\"stages\"><tbody>\n");
        foreach (var stage in summary.Stages)
            html.Append(CultureInfo.InvariantCulture, $"<tr><td>{Escape(stage.Name)}</td><td><span style=\"width:{100 * stage.Seconds / longest:F1}%\"></span></td><td>{Duration(stage.Seconds)}</td></tr>\n");
        html.Append("</tbody></table>\n");
        html.Append($"<p>{Escape(summary.Model)}; vocabulary {Count(summary.VocabularySize)}. {summary.Scores.Scorers} scorer processes wrote reference losses of {Count(summary.Scores.Tokens)} tokens to {(summary.Scores.Cache == "redis" ? "Redis" : "a folder")} in {Duration(summary.Scores.Seconds)}. Curated text {Count(summary.Data.CuratedTokens)} tokens, crawl {Count(summary.Data.CrawlTokens)}, held-out {Count(summary.Data.HeldOutTokens)}.</p>\n</section>\n");
    }

    private static double NiceStep(double rough)
    {
        var power = Math.Pow(10, Math.Floor(Math.Log10(Math.Max(rough, 1e-9))));
        return (rough / power) switch { <= 1 => 1, <= 2 => 2, <= 5 => 5, _ => 10 } * power;
    }

    private static string Tick(double value, double step) => value.ToString(step >= 1 ? "F0" : step >= 0.1 ? "F1" : "F2", CultureInfo.InvariantCulture);

    private static string Name(NoiseKind kind) => kind switch
    {
        NoiseKind.Boilerplate => "boilerplate",
        NoiseKind.Typo => "typos",
        NoiseKind.Random => "random strings",
        NoiseKind.Unrelated => "unrelated text",
        _ => "wrong answers",
    };

    private static string Number(double value) => double.IsFinite(value) ? value.ToString("F3", CultureInfo.InvariantCulture) : "not finite";

    private static string Percent(double value) => (100 * value).ToString("F0", CultureInfo.InvariantCulture) + " %";

    private static string Count(long value) => value switch
    {
        >= 10_000_000 => (value / 1e6).ToString("F0", CultureInfo.InvariantCulture) + " M",
        >= 1_000_000 => (value / 1e6).ToString("F1", CultureInfo.InvariantCulture) + " M",
        >= 10_000 => (value / 1e3).ToString("F0", CultureInfo.InvariantCulture) + " k",
        _ => value.ToString(CultureInfo.InvariantCulture),
    };

    private static string Duration(double seconds) => seconds < 60
        ? seconds.ToString("F1", CultureInfo.InvariantCulture) + " s"
        : $"{(int)seconds / 60} min {(int)seconds % 60} s";

    private static string Escape(string text) => WebUtility.HtmlEncode(text);

    private const string Style = """

        :root { color-scheme: light dark; --ground: #fbfbfa; --card: #fff; --ink: #1d2126; --soft: #5c6670; --line: #e3e5e8; --clm: #5b6b8c; --slm: #c2540a; --reference: #2f8a5b; --wrong: #b3261e; --mark: #ffe0bd; }
        @media (prefers-color-scheme: dark) { :root { --ground: #15181c; --card: #1d2126; --ink: #e8eaed; --soft: #9aa4ae; --line: #333a42; --clm: #9db0d6; --slm: #ff9a4d; --reference: #63c795; --wrong: #f2867e; --mark: #5d3714; } }
        * { box-sizing: border-box; }
        body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
        main { max-width: 860px; margin: 0 auto; padding: 40px 20px 64px; }
        .eyebrow { margin: 0; color: var(--slm); font-weight: 600; }
        h1 { font-size: 28px; line-height: 1.25; margin: 4px 0 12px; text-wrap: balance; }
        h2 { font-size: 19px; margin: 40px 0 4px; }
        .lead { font-size: 17px; margin: 0 0 24px; }
        p { margin: 4px 0 14px; }
        .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
        .tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
        .tile p { margin: 0; color: var(--soft); font-size: 14px; }
        .tile strong { display: block; font-size: 26px; font-variant-numeric: tabular-nums; }
        .tile.slm strong { color: var(--slm); }
        .tile small { color: var(--soft); font-size: 13px; line-height: 1.35; display: block; }
        figure { margin: 0 0 16px; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px; }
        svg { display: block; width: 100%; height: auto; font: 12px system-ui, "DejaVu Sans", sans-serif; }
        .grid { stroke: var(--line); } .tick { fill: var(--soft); font-variant-numeric: tabular-nums; }
        polyline { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
        polyline.clm { stroke: var(--clm); } polyline.slm { stroke: var(--slm); }
        circle.clm { fill: var(--clm); } circle.slm { fill: var(--slm); }
        line.reference { stroke: var(--reference); stroke-width: 1.6; stroke-dasharray: 6 5; }
        .label { font-weight: 600; } .label.clm { fill: var(--clm); } .label.slm { fill: var(--slm); } .label.reference { fill: var(--reference); }
        table { width: 100%; border-collapse: collapse; margin: 0 0 18px; font-size: 14px; font-variant-numeric: tabular-nums; }
        th { text-align: right; color: var(--soft); font-weight: 600; } td { text-align: right; }
        th, td { padding: 7px 8px; border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; }
        .key { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 8px; }
        .key.clm { background: var(--clm); } .key.slm { background: var(--slm); } .key.reference { background: var(--reference); }
        .page { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px; font: 14px/1.75 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
        mark { background: var(--mark); color: inherit; border-radius: 2px; }
        .noise { text-decoration: underline dotted var(--soft); text-underline-offset: 4px; }
        .asked th, .asked td { text-align: left; vertical-align: top; } .asked td { width: 30%; } .asked td:nth-child(2) { width: 10%; }
        .right { color: var(--reference); } .wrong { color: var(--wrong); } details { margin: 0 0 18px; } summary { cursor: pointer; color: var(--soft); }
        .stages td:nth-child(2) { width: 55%; } .stages span { display: block; height: 12px; border-radius: 3px; background: var(--clm); min-width: 2px; }
        @media (max-width: 640px) { table:not(.stages) { display: block; overflow-x: auto; } h1 { font-size: 24px; } }

        """;
}

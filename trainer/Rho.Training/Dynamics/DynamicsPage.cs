using System.Globalization;
using System.Net;
using System.Text;

namespace Rho.Training;

/// <summary>The report of token dynamics as one page, readable in light and dark.</summary>
internal static class DynamicsPage
{
    private const int Width = 760, Height = 300, Left = 52, Right = 120, Top = 14, Bottom = 36;

    public static string Render(DynamicsReport report)
    {
        var html = new StringBuilder();
        html.Append($$"""
            <!doctype html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <title>Token dynamics</title>
            <style>{{Style}}</style>
            </head>
            <body>
            <main>
            <h1>Token dynamics</h1>
            <p>{{Number(report.Tokens)}} tokens of {{Encode(Path.GetFileName(Path.TrimEndingDirectorySeparator(report.Corpus)))}}, scored by {{report.Checkpoints.Count}} checkpoints.
            A token whose fitted loss falls by more than {{Number(report.Threshold)}} nats is H→L, one whose loss rises by more L→H; of the others,
            those with a last loss up to the mean are L→L and the rest H→H.</p>

            """);
        Table(html, report);
        Chart(html, report);
        Examples(html, report);
        html.Append("</main>\n</body>\n</html>\n");
        return html.ToString();
    }

    private static void Table(StringBuilder html, DynamicsReport report)
    {
        html.Append("<section><h2>Shares</h2>\n<table><thead><tr><th>Class</th><th>Meaning</th><th>Tokens</th><th>Share</th><th>First loss</th><th>Last loss</th></tr></thead><tbody>\n");
        foreach (var row in report.Classes)
        {
            html.Append($"<tr><td><span class=\"key {Css(row.Class)}\"></span>{Name(row.Class)}</td><td>{Meaning(row.Class)}</td><td>{Number(row.Tokens)}</td><td>{row.Share.ToString("P1", CultureInfo.InvariantCulture)}</td>")
                .Append(row.Losses.Count == 0 ? "<td></td><td></td></tr>\n" : $"<td>{Number(row.Losses[0])}</td><td>{Number(row.Losses[^1])}</td></tr>\n");
        }

        html.Append($"<tr><td>all</td><td></td><td>{Number(report.Tokens)}</td><td>100 %</td><td>{Number(report.Losses[0])}</td><td>{Number(report.Losses[^1])}</td></tr>\n</tbody></table></section>\n");
    }

    private static void Chart(StringBuilder html, DynamicsReport report)
    {
        var n = report.Checkpoints.Count - 1;
        var highest = Math.Max(1e-9, report.Classes.SelectMany(row => row.Losses).DefaultIfEmpty(1).Max()) * 1.05;
        double X(int checkpoint) => Left + (double)(Width - Left - Right) * checkpoint / n;
        double Y(double loss) => Height - Bottom - (Height - Top - Bottom) * loss / highest;
        html.Append($"<section><h2>Mean loss of each class</h2>\n<svg viewBox=\"0 0 {Width} {Height}\" role=\"img\" aria-label=\"Mean loss of each class at each checkpoint\">\n");
        for (var i = 0; i <= 4; i++)
        {
            var loss = highest * i / 4;
            html.Append($"<line class=\"grid\" x1=\"{Left}\" x2=\"{Width - Right}\" y1=\"{Point(Y(loss))}\" y2=\"{Point(Y(loss))}\"/><text x=\"{Left - 8}\" y=\"{Point(Y(loss) + 4)}\" text-anchor=\"end\">{Number(loss)}</text>\n");
        }

        var every = Math.Max(1, (n + 9) / 10);
        for (var i = 0; i <= n; i += every) html.Append($"<text x=\"{Point(X(i))}\" y=\"{Height - Bottom + 18}\" text-anchor=\"middle\">{i}</text>\n");
        html.Append($"<text x=\"{Point(X(n))}\" y=\"{Height - 4}\" text-anchor=\"end\">checkpoint</text>\n");
        foreach (var row in report.Classes.Where(row => row.Losses.Count > 0))
        {
            html.Append($"<polyline class=\"{Css(row.Class)}\" points=\"{string.Join(' ', row.Losses.Select((loss, i) => $"{Point(X(i))},{Point(Y(loss))}"))}\"/>")
                .Append($"<text class=\"{Css(row.Class)}\" x=\"{Width - Right + 8}\" y=\"{Point(Y(row.Losses[^1]) + 4)}\">{Name(row.Class)}</text>\n");
        }

        html.Append("</svg></section>\n");
    }

    private static void Examples(StringBuilder html, DynamicsReport report)
    {
        html.Append("<section><h2>Text</h2>\n<p>");
        foreach (var kind in Enum.GetValues<TokenClass>()) html.Append($"<mark class=\"{Css(kind)}\">{Name(kind)} {Meaning(kind)}</mark> ");
        html.Append("Hold the pointer over a token for its losses.</p>\n");
        foreach (var example in report.Examples)
        {
            html.Append("<p class=\"text\">");
            foreach (var token in example)
            {
                var text = Encode(token.Text).Replace("\n", "<span class=\"end\">↵</span>\n", StringComparison.Ordinal);
                html.Append(token.Class is { } kind ? $"<mark class=\"{Css(kind)}\" title=\"{Name(kind)}: {string.Join(", ", token.Losses.Select(loss => Number(loss)))}\">{text}</mark>" : text);
            }

            html.Append("</p>\n");
        }

        html.Append("</section>\n");
    }

    private static string Name(TokenClass kind) => kind switch
    {
        TokenClass.HighToHigh => "H→H",
        TokenClass.LowToHigh => "L→H",
        TokenClass.HighToLow => "H→L",
        _ => "L→L",
    };

    private static string Meaning(TokenClass kind) => kind switch
    {
        TokenClass.HighToHigh => "stays hard",
        TokenClass.LowToHigh => "gets harder",
        TokenClass.HighToLow => "is learnt",
        _ => "was known",
    };

    private static string Css(TokenClass kind) => kind switch
    {
        TokenClass.HighToHigh => "hh",
        TokenClass.LowToHigh => "lh",
        TokenClass.HighToLow => "hl",
        _ => "ll",
    };

    private static string Encode(string text) => WebUtility.HtmlEncode(text);

    private static string Number(double value) => value.ToString("0.###", CultureInfo.InvariantCulture);

    private static string Number(long value) => value.ToString("N0", CultureInfo.InvariantCulture);

    private static string Point(double value) => value.ToString("0.##", CultureInfo.InvariantCulture);

    private const string Style = """
        :root { color-scheme: light dark; --hh: #c2410c; --lh: #a21caf; --hl: #15803d; --ll: #64748b; --line: #8884; }
        @media (prefers-color-scheme: dark) { :root { --hh: #fb923c; --lh: #e879f9; --hl: #4ade80; --ll: #94a3b8; } }
        body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
        main { max-width: 50rem; margin: 0 auto; padding: 1.5rem; }
        table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
        th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
        svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: currentColor; }
        .grid { stroke: var(--line); } polyline { fill: none; stroke-width: 2; }
        polyline.hh { stroke: var(--hh); } polyline.lh { stroke: var(--lh); } polyline.hl { stroke: var(--hl); } polyline.ll { stroke: var(--ll); }
        text.hh { fill: var(--hh); } text.lh { fill: var(--lh); } text.hl { fill: var(--hl); } text.ll { fill: var(--ll); }
        .key { display: inline-block; width: .75rem; height: .75rem; border-radius: 2px; margin-right: .4rem; }
        .key.hh { background: var(--hh); } .key.lh { background: var(--lh); } .key.hl { background: var(--hl); } .key.ll { background: var(--ll); }
        mark { color: inherit; border-radius: 2px; }
        mark.hh { background: color-mix(in srgb, var(--hh) 30%, transparent); } mark.lh { background: color-mix(in srgb, var(--lh) 30%, transparent); }
        mark.hl { background: color-mix(in srgb, var(--hl) 30%, transparent); } mark.ll { background: color-mix(in srgb, var(--ll) 18%, transparent); }
        .text { font-family: ui-monospace, monospace; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); border-radius: 6px; padding: .75rem; }
        .end { opacity: .5; }
        """;
}

using Rho.Cli.Quickstart;

namespace Rho.Cli.Tests;

public class QuickstartCorpusTests
{
    private static readonly QuickstartCorpus Corpus = QuickstartCorpus.Generate(7, 50_000, 100_000, 20_000);

    [Fact]
    public void Generate_SameSeed_SameDocuments()
    {
        var again = QuickstartCorpus.Generate(7, 50_000, 100_000, 20_000);
        Assert.Equal(Corpus.Crawl.Select(page => page.Text), again.Crawl.Select(page => page.Text));
        Assert.NotEqual(Corpus.Crawl[0].Text, QuickstartCorpus.Generate(8, 50_000, 100_000, 20_000).Crawl[0].Text);
    }

    [Fact]
    public void Generate_HeldOutProblems_OccurNowhereElse()
    {
        var heldOut = Corpus.HeldOut.SelectMany(Problems).ToHashSet(StringComparer.Ordinal);
        Assert.NotEmpty(heldOut);
        Assert.DoesNotContain(Corpus.Curated.SelectMany(Problems), heldOut.Contains);
        Assert.DoesNotContain(Corpus.Crawl.SelectMany(Problems), heldOut.Contains);
    }

    [Fact]
    public void Crawl_WithoutItsNoise_IsWholeProblems()
    {
        foreach (var page in Corpus.Crawl)
        {
            var clean = page.Text;
            foreach (var span in page.Noise.Reverse()) clean = clean.Remove(span.Start, span.Length);
            foreach (var problem in clean.Split("\n\n", StringSplitOptions.RemoveEmptyEntries))
                Assert.Matches(@"^Question: .*\nAnswer: .* The answer is -?\d+\.$", problem);
        }
    }

    [Fact]
    public void Crawl_NoiseSpans_AreOrderedAndInside()
    {
        foreach (var page in Corpus.Crawl)
        {
            var end = 0;
            foreach (var span in page.Noise)
            {
                Assert.True(span.Start >= end && span.Length > 0);
                end = span.Start + span.Length;
            }

            Assert.True(end <= page.Text.Length);
        }
    }

    [Fact]
    public void Crawl_ShareOfNoise_IsNearHalf()
    {
        var share = (double)Corpus.Crawl.Sum(page => page.Noise.Sum(span => span.Length)) / Corpus.Crawl.Sum(page => page.Text.Length);
        Assert.InRange(share, 0.3, 0.6);
    }

    [Theory]
    [InlineData(0, 4, null)]
    [InlineData(8, 4, null)]
    [InlineData(9, 4, NoiseKind.Random)]
    [InlineData(12, 2, NoiseKind.Random)]
    public void KindOf_Token_IsNoiseWhenMostOfItIs(int start, int length, object? kind)
    {
        var document = new MarkedDocument("clean text random clean", [new NoiseSpan(10, 7, NoiseKind.Random)]);
        Assert.Equal((NoiseKind?)kind, document.KindOf(start, length));
    }

    private static IEnumerable<string> Problems(MarkedDocument document) => document.Text.Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
}

using System.Text.RegularExpressions;
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
                Assert.Matches(@"^Question: .*\nAnswer: \w*\.$", problem.TrimEnd('\n')); // A wrong answer is noise, and leaves a gap.
        }
    }

    [Fact]
    public void Answers_OfCleanProblems_AreRight()
    {
        var problems = Corpus.Curated.Concat(Corpus.HeldOut).SelectMany(Problems).Select(Asked).Distinct().ToList();
        Assert.Equal(problems.Count, problems.DistinctBy(problem => problem.Question).Count());
        Assert.Contains(("what is the capital of France?", "Paris."), problems);
        var sums = 0;
        foreach (var (question, answer) in problems)
        {
            if (!int.TryParse(Regex.Match(question, @"\d+", RegexOptions.None, TimeSpan.FromSeconds(1)).Value, out var number)) continue;
            var expected = question.Contains("squared", StringComparison.Ordinal) ? number * number
                : question.Contains("twice", StringComparison.Ordinal) ? 2 * number
                : question.Contains("after", StringComparison.Ordinal) ? number + 1 : number + 10;
            Assert.Equal($"{expected}.", answer);
            sums++;
        }

        Assert.True(sums > 40);
    }

    [Fact]
    public void Crawl_Mistakes_AreWrongAnswers()
    {
        var right = Corpus.Curated.SelectMany(Problems).Select(Asked).ToHashSet();
        var mistakes = 0;
        foreach (var page in Corpus.Crawl)
        {
            foreach (var span in page.Noise.Where(span => span.Kind == NoiseKind.Mistake))
            {
                var end = page.Text.IndexOf('\n', span.Start) + 1;
                Assert.Equal(page.Text.Substring(span.Start, span.Length) + ".\n", page.Text[span.Start..end]);
                Assert.DoesNotContain(Asked(page.Text[page.Text.LastIndexOf("Question: ", span.Start, StringComparison.Ordinal)..end]), right);
                mistakes++;
            }
        }

        Assert.True(mistakes > 50);
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

    /// <summary>A problem without who asks.</summary>
    private static (string Question, string Answer) Asked(string problem)
    {
        var (prompt, answer) = Quickstart.Problems.Split(problem);
        return (prompt[(prompt.IndexOf(", ", StringComparison.Ordinal) + 2)..prompt.IndexOf('\n', StringComparison.Ordinal)], answer);
    }

    private static IEnumerable<string> Problems(MarkedDocument document) => document.Text.Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
}

using Rho.Serving.Engine;

namespace Rho.Serving.Tests;

public sealed class StopMatcherTests
{
    [Fact]
    public void Append_AnySplitOfTheText_SendsTheSameAndNothingOfTheStop()
    {
        var random = new Random(5);
        string[] stops = ["aab", "ba", "###"];
        for (var round = 0; round < 5000; round++)
        {
            var text = string.Concat(Enumerable.Range(0, random.Next(1, 20)).Select(_ => "ab#c"[random.Next(4)]));
            var matcher = new StopMatcher(stops);
            var sent = "";
            string? found = null;
            for (var i = 0; i < text.Length && found is null;)
            {
                var length = Math.Min(random.Next(1, 4), text.Length - i);
                sent += matcher.Append(text.Substring(i, length), out found);
                i += length;
                Assert.StartsWith(sent, text, StringComparison.Ordinal);
                Assert.DoesNotContain(stops, stop => sent.Contains(stop, StringComparison.Ordinal));
            }

            if (found is null)
            {
                Assert.Equal(text, sent + matcher.Flush());
                Assert.DoesNotContain(stops, stop => text.Contains(stop, StringComparison.Ordinal));
            }
            else
            {
                Assert.StartsWith(sent + found, text, StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public void Append_TextThatCannotBeginAStop_IsSentAtOnce()
    {
        var matcher = new StopMatcher(["xyz"]);
        Assert.Equal("abc", matcher.Append("abc", out _));
        Assert.Equal("", matcher.Append("x", out _));
        Assert.Equal("", matcher.Append("y", out _));
        Assert.Equal("xyab", matcher.Append("ab", out _));
    }
}

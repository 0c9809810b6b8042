using System.Text;

namespace Rho.Cli.Quickstart;

/// <summary>What surrounds the text of interest on crawled pages: page furniture, machine strings, other subjects.</summary>
internal static class Clutter
{
    private static readonly string[] Furniture =
    [
        "Home | About us | Contact | Sitemap | Log in",
        "We use cookies to improve your experience. Accept all | Manage settings | Reject",
        "Share this page: Facebook Twitter Reddit Email",
        "Subscribe to our newsletter and never miss an update!",
        "Copyright (c) All rights reserved. Terms of service | Privacy policy",
        "Please enable JavaScript to view the comments.",
        "You might also like: Top 10 tips | Best deals of the week | What happened next will surprise you",
        "Page 1 2 3 4 5 Next >> Last",
        "Sign up for free or log in with your account to continue reading.",
        "Advertisement. Scroll to continue.",
        "Back to top",
        "Loading... please wait",
    ];

    private static readonly string[] Subjects =
    [
        "The storm", "A local council", "The orchestra", "Her grandmother", "The fishing fleet", "An old railway", "The new museum",
        "A retired pilot", "The garden club", "Our hotel", "The village bakery", "A young director", "The football team", "The harbour",
    ];

    private static readonly string[] Verbs =
    [
        "announced", "remembered", "avoided", "celebrated", "rebuilt", "painted", "crossed", "abandoned", "praised", "photographed",
        "visited", "described", "defended", "inherited",
    ];

    private static readonly string[] Objects =
    [
        "the northern coast", "a quiet valley", "its longest season", "the evening market", "a forgotten recipe", "the winter festival",
        "an unusual bridge", "the morning ferry", "a wooden church", "the annual parade", "a collection of maps", "the harvest",
        "a difficult decision", "the oldest lighthouse",
    ];

    private static readonly string[] Endings =
    [
        "despite heavy rain", "for the first time", "with great care", "before the summer", "without any warning", "after many years",
        "in front of a large crowd", "under a grey sky", "on the way home", "to everyone's surprise",
    ];

    /// <summary>A line of page furniture.</summary>
    public static string Boilerplate(Random random) => Pick(random, Furniture) + "\n";

    /// <summary>Sentences on other subjects.</summary>
    public static string Unrelated(Random random)
    {
        var text = new StringBuilder();
        for (var sentences = random.Next(1, 4); sentences > 0; sentences--)
        {
            text.Append($"{Pick(random, Subjects)} {Pick(random, Verbs)} {Pick(random, Objects)} {Pick(random, Endings)}.");
            text.Append(sentences > 1 ? ' ' : '\n');
        }

        return text.ToString();
    }

    /// <summary>What no model can learn: identifiers, hashes, tracking links.</summary>
    public static string RandomString(Random random) => random.Next(4) switch
    {
        0 => $"session={Draw(random, 24, "0123456789abcdef")}\n",
        1 => $"https://cdn.{Draw(random, 6, "abcdefghijklmnopqrstuvwxyz")}.example/{Draw(random, 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")}.js\n",
        2 => $"[{Draw(random, 32, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}==]\n",
        _ => $"SKU {Draw(random, 4, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")}-{Draw(random, 8, "0123456789")} #{Draw(random, 10, "0123456789")}\n",
    };

    /// <summary>A stretch of characters as a slip of the keyboard leaves it.</summary>
    public static string Typo(Random random)
    {
        var text = new StringBuilder();
        for (var length = random.Next(2, 7); length > 0; length--) text.Append("qwertyuiop;lkjhgfdsazxcvbnm,0987654321"[random.Next(38)]);
        return text.ToString();
    }

    private static string Draw(Random random, int length, string alphabet) => string.Create(length, (random, alphabet), static (span, state) =>
    {
        for (var i = 0; i < span.Length; i++) span[i] = state.alphabet[state.random.Next(state.alphabet.Length)];
    });

    private static string Pick(Random random, string[] lines) => lines[random.Next(lines.Length)];
}

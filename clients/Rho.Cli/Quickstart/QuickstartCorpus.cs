using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Rho.Cli.Quickstart;

/// <summary>Why a stretch of a generated document is noise.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<NoiseKind>))]
internal enum NoiseKind
{
    Boilerplate,
    Typo,
    Random,
    Unrelated,
    Mistake,
}

/// <summary>A stretch of noise: <paramref name="Length"/> characters (UTF-16 units) from <paramref name="Start"/>.</summary>
internal readonly record struct NoiseSpan(int Start, int Length, NoiseKind Kind);

/// <summary>A generated document; <paramref name="Noise"/> is in order and without overlap.</summary>
internal sealed record MarkedDocument(string Text, IReadOnlyList<NoiseSpan> Noise)
{
    /// <summary>The kind of noise that most of the given characters are, or null where at least half of them are clean.</summary>
    public NoiseKind? KindOf(int start, int length)
    {
        var noisy = 0;
        NoiseKind? kind = null;
        foreach (var span in Noise)
        {
            var overlap = Math.Min(start + length, span.Start + span.Length) - Math.Max(start, span.Start);
            if (overlap <= 0) continue;
            noisy += overlap;
            kind ??= span.Kind;
        }

        return 2 * noisy > length ? kind : null;
    }
}

/// <summary>
/// The quickstart's data, reproducible from a seed: clean problems (curated, held out), and crawl-like pages in which such
/// problems sit among boilerplate, typos, random strings and unrelated text, and many have a wrong answer. No held-out problem occurs in
/// the other two, though its fact does, asked by others.
/// </summary>
internal sealed class QuickstartCorpus
{
    private static readonly JsonSerializerOptions JsonOptions = new(JsonSerializerDefaults.Web) { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private readonly HashSet<string> _heldOut = new(StringComparer.Ordinal);

    private QuickstartCorpus(int seed, int curatedCharacters, int crawlCharacters, int heldOutCharacters)
    {
        HeldOut = CleanDocuments(new Random(seed), heldOutCharacters, problem => _heldOut.Add(problem));
        Curated = CleanDocuments(new Random(seed + 1), curatedCharacters, IsNotHeldOut);
        Crawl = CrawlPages(new Random(seed + 2), crawlCharacters);
    }

    /// <summary>Clean problems that train the reference.</summary>
    public IReadOnlyList<MarkedDocument> Curated { get; }

    /// <summary>Pages of problems and noise that train the models to be compared.</summary>
    public IReadOnlyList<MarkedDocument> Crawl { get; }

    /// <summary>Clean problems on which the models are compared.</summary>
    public IReadOnlyList<MarkedDocument> HeldOut { get; }

    /// <summary>Makes about the given numbers of characters of each kind.</summary>
    public static QuickstartCorpus Generate(int seed, int curatedCharacters, int crawlCharacters, int heldOutCharacters) =>
        new(seed, curatedCharacters, crawlCharacters, heldOutCharacters);

    /// <summary>Writes documents as JSON lines with the fields text and noise.</summary>
    public static void Write(string path, IEnumerable<MarkedDocument> documents) => AtomicFile.Write(path, stream =>
    {
        using var writer = new StreamWriter(stream, new UTF8Encoding(false), leaveOpen: true) { NewLine = "\n" };
        foreach (var document in documents) writer.WriteLine(JsonSerializer.Serialize(document, JsonOptions));
    });

    private static List<MarkedDocument> CleanDocuments(Random random, int characters, Func<string, bool> accept)
    {
        var documents = new List<MarkedDocument>();
        for (var written = 0; written < characters;)
        {
            var text = new StringBuilder();
            for (var problems = random.Next(2, 6); problems > 0; problems--) text.Append(NextProblem(random, accept)).Append('\n');
            documents.Add(new MarkedDocument(text.ToString(), []));
            written += text.Length;
        }

        return documents;
    }

    private static string NextProblem(Random random, Func<string, bool> accept)
    {
        // The space of problems is far larger than what is drawn; a bound keeps a mistake from looping for ever.
        for (var attempt = 0; attempt < 1000; attempt++)
        {
            var problem = Problems.Next(random);
            if (accept(problem)) return problem;
        }

        throw new InvalidOperationException("the generator ran out of new problems");
    }

    private List<MarkedDocument> CrawlPages(Random random, int characters)
    {
        var pages = new List<MarkedDocument>();
        for (var written = 0; written < characters;)
        {
            var page = CrawlPage(random);
            pages.Add(page);
            written += page.Text.Length;
        }

        return pages;
    }

    private MarkedDocument CrawlPage(Random random)
    {
        var text = new StringBuilder();
        var noise = new List<NoiseSpan>();
        AddNoise(NoiseKind.Boilerplate, Clutter.Boilerplate(random));
        for (var parts = random.Next(4, 10); parts > 0; parts--)
        {
            switch (random.Next(20))
            {
                case < 11: AddProblem(); break;
                case < 13: AddNoise(NoiseKind.Unrelated, Clutter.Unrelated(random)); break;
                case < 17: AddNoise(NoiseKind.Random, Clutter.RandomString(random)); break;
                default: AddNoise(NoiseKind.Boilerplate, Clutter.Boilerplate(random)); break;
            }
        }

        AddNoise(NoiseKind.Boilerplate, Clutter.Boilerplate(random));
        return new MarkedDocument(text.ToString(), noise);

        void AddNoise(NoiseKind kind, string characters)
        {
            noise.Add(new NoiseSpan(text.Length, characters.Length, kind));
            text.Append(characters);
        }

        void AddProblem()
        {
            switch (random.Next(8))
            {
                case < 3: AddMistaken(); break;
                case 3: AddWithTypo(); break;
                default: text.Append(NextProblem(random, IsNotHeldOut)); break;
            }

            text.Append('\n');
        }

        void AddMistaken()
        {
            var problem = Problems.NextMistaken(random);
            while (!IsNotHeldOut(problem.Right)) problem = Problems.NextMistaken(random);
            noise.Add(new NoiseSpan(text.Length + problem.Start, problem.Length, NoiseKind.Mistake));
            text.Append(problem.Wrong);
        }

        void AddWithTypo()
        {
            var problem = NextProblem(random, IsNotHeldOut);
            var slip = random.Next(12, problem.Length - 12);
            text.Append(problem, 0, slip);
            AddNoise(NoiseKind.Typo, Clutter.Typo(random));
            text.Append(problem, slip, problem.Length - slip);
        }
    }

    private bool IsNotHeldOut(string problem) => !_heldOut.Contains(problem);
}

using System.Collections.Concurrent;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Text;

namespace Rho.Tokenization;

/// <summary>How text is cut into words before pairs are counted: no token reaches across words.</summary>
public enum BpePattern
{
    /// <summary>Words with one character before them, numbers of up to three digits, line breaks apart (Llama 3, GPT-4).</summary>
    Llama3,

    /// <summary>As Llama 3, with every digit a word of its own (Qwen2).</summary>
    Qwen2,

    /// <summary>GPT-2's.</summary>
    Gpt2,
}

public sealed record BpeTrainerOptions
{
    /// <summary>Tokens in all: special ones, 256 bytes and merges.</summary>
    public required int VocabularySize { get; init; }

    public BpePattern Pattern { get; init; } = BpePattern.Llama3;

    /// <summary>Pairs seen less often are not merged, even when the vocabulary stays smaller for it.</summary>
    public long MinimumFrequency { get; init; } = 2;

    /// <summary>Put before a text by Encode with special tokens; null for none.</summary>
    public string? BosToken { get; init; } = "<|begin_of_text|>";

    public string? EosToken { get; init; } = "<|end_of_text|>";

    public string? PadToken { get; init; }

    /// <summary>Further special tokens, such as the marks of a chat.</summary>
    public IReadOnlyList<string> SpecialTokens { get; init; } = [];

    /// <summary>Threads that cut and count words.</summary>
    public int Threads { get; init; } = Environment.ProcessorCount;
}

/// <param name="Characters">UTF-16 units of text counted so far.</param>
/// <param name="Merges">Merges found so far.</param>
/// <param name="MergesWanted">Merges that fill the vocabulary.</param>
public readonly record struct BpeTrainerProgress(long Characters, int Merges, int MergesWanted);

/// <summary>
/// Learns a byte-level BPE tokenizer from text: the most frequent pair of neighbours becomes a token, again and again
/// (Sennrich et al., https://aclanthology.org/P16-1162). Equal counts go to the pair with the lower ids, so the result
/// depends on the texts alone and not on threads or order.
/// </summary>
public static class BpeTrainer
{
    private const int BatchCharacters = 1 << 18;

    /// <exception cref="RhoException">The options do not fit together.</exception>
    public static Tokenizer Train(
        IEnumerable<string> texts, BpeTrainerOptions options, IProgress<BpeTrainerProgress>? progress = null, CancellationToken cancellation = default)
    {
        string[] special =
        [
            .. new[] { options.BosToken, options.EosToken, options.PadToken }.OfType<string>().Concat(options.SpecialTokens).Distinct(StringComparer.Ordinal),
        ];
        if (special.Contains("")) throw new RhoException("a special token is empty");
        var smallest = special.Length + 256;
        if (options.VocabularySize < smallest)
            throw new RhoException($"vocabulary size {options.VocabularySize}: at least {smallest} is needed ({special.Length} special tokens and 256 bytes)");
        if (options.Threads < 1) throw new RhoException($"threads: {options.Threads}, at least 1 is needed");

        var vocabulary = new Vocabulary();
        foreach (var token in special) vocabulary.TryAdd(token, vocabulary.Size);
        var letters = Enumerable.Range(0, 256).Select(b => ByteAlphabet.Letter((byte)b)).Order().ToArray();
        foreach (var letter in letters)
        {
            if (!vocabulary.TryAdd(letter.ToString(), vocabulary.Size))
                throw new RhoException($"special token \"{letter}\": it is the name of a byte");
        }

        var splitter = options.Pattern switch
        {
            BpePattern.Llama3 => LlamaSplitter.Llama3,
            BpePattern.Qwen2 => LlamaSplitter.Qwen2,
            _ => (Splitter)Gpt2Splitter.Instance,
        };
        var wanted = options.VocabularySize - smallest;
        var added = special.Select((token, id) => new AddedToken(id, token, true, false, false, false, false)).ToArray();
        var words = Count(texts, splitter, added, options.Threads, wanted, progress, cancellation);
        var merges = MergeLearner.Learn(words, vocabulary, wanted, options.MinimumFrequency, progress, cancellation);
        return Assemble(options, vocabulary, merges, added);
    }

    private static Tokenizer Assemble(BpeTrainerOptions options, Vocabulary vocabulary, List<(string Left, string Right)> merges, AddedToken[] added)
    {
        var pattern = options.Pattern switch
        {
            BpePattern.Llama3 => LlamaSplitter.Llama3Pattern,
            BpePattern.Qwen2 => LlamaSplitter.Qwen2Pattern,
            _ => Gpt2Splitter.Pattern,
        };

        // Offsets stay untrimmed: the tokens of a text then cover all of it.
        var post = PostProcessor.ByteLevel(addPrefixSpace: false, trimOffsets: false, useRegex: false);
        if (options.BosToken is { } bos) post = PostProcessor.Sequence(post, PostProcessor.Template([(bos, 0)], []));
        var parts = new TokenizerParts
        {
            Model = new BpeModel(vocabulary, merges, new BpeOptions(), byteLevel: true),
            AddedTokens = added,
            PreTokenizers = [new SplitPreTokenizer(RegexPattern.Create(pattern), SplitBehavior.Isolated, invert: false), new ByteLevelPreTokenizer(false, false, false)],
            PostProcessor = post,
            Decoders = [new ByteLevelDecoder()],
        };
        return new Tokenizer(parts, new TokenizerSettings { BosToken = options.BosToken, EosToken = options.EosToken, PadToken = options.PadToken });
    }

    /// <summary>How often each word occurs. Special tokens in the text are left out.</summary>
    private static Dictionary<string, long> Count(
        IEnumerable<string> texts, Splitter splitter, AddedToken[] special, int threads, int wanted, IProgress<BpeTrainerProgress>? progress, CancellationToken cancellation)
    {
        var matcher = special.Length == 0 ? null : new AddedTokenMatcher([.. special.Select(token => (token.Content, token))]);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        using var batches = new BlockingCollection<List<string>>(threads * 2);
        var counts = new Dictionary<string, long>[threads];
        long characters = 0;
        var workers = Enumerable.Range(0, threads).Select(index => Task.Factory.StartNew(
            () =>
            {
                try
                {
                    var own = counts[index] = new Dictionary<string, long>(StringComparer.Ordinal);
                    var bySpan = own.GetAlternateLookup<ReadOnlySpan<char>>();
                    foreach (var batch in batches.GetConsumingEnumerable(stop.Token))
                    {
                        foreach (var text in batch) CountText(text, splitter, matcher, bySpan);
                        progress?.Report(new BpeTrainerProgress(Interlocked.Add(ref characters, batch.Sum(text => (long)text.Length)), 0, wanted));
                    }
                }
                catch
                {
                    stop.Cancel();
                    throw;
                }
            },
            CancellationToken.None,
            TaskCreationOptions.LongRunning,
            TaskScheduler.Default)).ToArray();
        try
        {
            var batch = new List<string>();
            var size = 0;
            foreach (var text in texts)
            {
                batch.Add(text);
                size += text.Length;
                if (size < BatchCharacters) continue;
                batches.Add(batch, stop.Token);
                batch = [];
                size = 0;
            }

            batches.Add(batch, stop.Token);
            batches.CompleteAdding();
        }
        catch
        {
            // The workers stop too; where one of them failed, its error is the cause.
            stop.Cancel();
            var failures = workers.Select(Failure).ToArray();
            cancellation.ThrowIfCancellationRequested();
            if (Array.Find(failures, failure => failure is not null and not OperationCanceledException) is { } cause) ExceptionDispatchInfo.Throw(cause);
            throw;
        }

        foreach (var worker in workers) worker.GetAwaiter().GetResult();
        var total = counts[0];
        foreach (var other in counts.Skip(1))
        {
            foreach (var (word, count) in other) CollectionsMarshal.GetValueRefOrAddDefault(total, word, out _) += count;
        }

        return total;
    }

    private static Exception? Failure(Task worker)
    {
        try
        {
            worker.GetAwaiter().GetResult();
            return null;
        }
        catch (Exception error)
        {
            return error;
        }
    }

    private static void CountText(string text, Splitter splitter, AddedTokenMatcher? matcher, Dictionary<string, long>.AlternateLookup<ReadOnlySpan<char>> counts)
    {
        var search = 0;
        var taken = 0;
        while (taken < text.Length)
        {
            var from = taken;
            var end = text.Length;
            if (matcher is null || matcher.Next(text, ref search, ref taken, out end) is null) taken = text.Length;
            var piece = text.AsSpan(from, end - from);
            for (var start = 0; start < piece.Length;)
            {
                var next = splitter.Next(piece, start);
                CollectionsMarshal.GetValueRefOrAddDefault(counts, piece[start..next], out _)++;
                start = next;
            }
        }
    }
}

/// <summary>Finds merges from word counts, keeping pair counts up to date as words shrink.</summary>
internal sealed class MergeLearner
{
    private readonly Dictionary<ulong, int> _index = [];
    private readonly List<Pair> _pairs = [];
    private readonly PriorityQueue<int, (long Count, ulong Pair)> _queue = new(new MostFrequentFirst());
    private readonly List<int> _grown = [];
    private readonly int[] _symbols;
    private readonly int[] _starts;
    private readonly int[] _lengths;
    private readonly long[] _counts;
    private int _step;

    private MergeLearner(Dictionary<string, long> words, Vocabulary vocabulary)
    {
        // Byte tokens were added one after the other: look each up once.
        var ids = new int[256];
        for (var b = 0; b < 256; b++) vocabulary.TryGet([ByteAlphabet.Letter((byte)b)], out ids[b]);

        _starts = new int[words.Count];
        _lengths = new int[words.Count];
        _counts = new long[words.Count];
        var symbols = new List<int>();
        var index = 0;
        foreach (var (word, count) in words)
        {
            _starts[index] = symbols.Count;
            foreach (var b in Encoding.UTF8.GetBytes(word)) symbols.Add(ids[b]);
            _lengths[index] = symbols.Count - _starts[index];
            _counts[index++] = count;
        }

        _symbols = [.. symbols];
    }

    public static List<(string Left, string Right)> Learn(
        Dictionary<string, long> words, Vocabulary vocabulary, int wanted, long minimum, IProgress<BpeTrainerProgress>? progress, CancellationToken cancellation)
    {
        var merges = new List<(string Left, string Right)>();
        if (wanted == 0) return merges;
        var learner = new MergeLearner(words, vocabulary);
        for (var word = 0; word < learner._starts.Length; word++)
        {
            for (var i = learner._starts[word]; i + 1 < learner._starts[word] + learner._lengths[word]; i++)
                learner.Add(learner._symbols[i], learner._symbols[i + 1], word, learner._counts[word]);
        }

        learner.QueueGrown();
        while (merges.Count < wanted && learner.TryNext(Math.Max(1, minimum), out var pair))
        {
            cancellation.ThrowIfCancellationRequested();
            var (left, right) = ((int)(pair.Key >> 32), (int)(uint)pair.Key);
            var merge = (vocabulary[left]!, vocabulary[right]!);
            var token = merge.Item1 + merge.Item2;

            // Two ways of joining the same letters give one token; the second adds a merge only.
            if (!vocabulary.TryGet(token, out var merged)) vocabulary.TryAdd(token, merged = vocabulary.Size);
            else wanted++;
            merges.Add(merge);
            learner.Merge(pair, left, right, merged);
            if (merges.Count % 64 == 0) progress?.Report(new BpeTrainerProgress(0, merges.Count, wanted));
        }

        return merges;
    }

    private bool TryNext(long minimum, out Pair pair)
    {
        while (_queue.TryDequeue(out var index, out var queued))
        {
            pair = _pairs[index];
            if (pair.Count != queued.Count)
            {
                // Counts fell since this was queued.
                if (pair.Count > 0) _queue.Enqueue(index, (pair.Count, pair.Key));
                continue;
            }

            return pair.Count >= minimum;
        }

        pair = null!;
        return false;
    }

    private void Merge(Pair pair, int left, int right, int merged)
    {
        _step++;
        var words = pair.Words;
        pair.Words = [];
        var previousWord = -1;
        words.Sort();
        foreach (var word in words)
        {
            if (word != previousWord) MergeWord(word, left, right, merged);
            previousWord = word;
        }

        pair.Count = 0;
        QueueGrown();
    }

    private void MergeWord(int word, int left, int right, int merged)
    {
        var count = _counts[word];
        var symbols = _symbols.AsSpan(_starts[word], _lengths[word]);
        var kept = 0;
        for (var i = 0; i < symbols.Length; i++)
        {
            if (symbols[i] != left || i + 1 >= symbols.Length || symbols[i + 1] != right)
            {
                symbols[kept++] = symbols[i];
                continue;
            }

            if (kept > 0)
            {
                Subtract(symbols[kept - 1], left, count);
                Add(symbols[kept - 1], merged, word, count);
            }

            if (i + 2 < symbols.Length)
            {
                Subtract(right, symbols[i + 2], count);
                Add(merged, symbols[i + 2], word, count);
            }

            symbols[kept++] = merged;
            i++;
        }

        _lengths[word] = kept;
    }

    private void Add(int left, int right, int word, long count)
    {
        var key = (ulong)(uint)left << 32 | (uint)right;
        ref var index = ref CollectionsMarshal.GetValueRefOrAddDefault(_index, key, out var known);
        if (!known)
        {
            index = _pairs.Count;
            _pairs.Add(new Pair { Key = key });
        }

        var pair = _pairs[index];
        pair.Count += count;
        if (pair.Words.Count == 0 || pair.Words[^1] != word) pair.Words.Add(word);
        if (pair.GrownInStep == _step + 1) return;
        pair.GrownInStep = _step + 1;
        _grown.Add(index);
    }

    private void Subtract(int left, int right, long count)
    {
        if (_index.TryGetValue((ulong)(uint)left << 32 | (uint)right, out var index)) _pairs[index].Count -= count;
    }

    private void QueueGrown()
    {
        foreach (var index in _grown)
        {
            var pair = _pairs[index];
            if (pair.Count > 0) _queue.Enqueue(index, (pair.Count, pair.Key));
        }

        _grown.Clear();
    }

    private sealed class Pair
    {
        public ulong Key;
        public long Count;
        public int GrownInStep;
        public List<int> Words = [];
    }

    private sealed class MostFrequentFirst : IComparer<(long Count, ulong Pair)>
    {
        public int Compare((long Count, ulong Pair) x, (long Count, ulong Pair) y)
        {
            var byCount = y.Count.CompareTo(x.Count);
            return byCount != 0 ? byCount : x.Pair.CompareTo(y.Pair);
        }
    }
}

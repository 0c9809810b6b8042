using System.Diagnostics;
using Rho.Formats;
using Rho.Model;

namespace Rho.TestSupport;

/// <summary>
/// A bigram model whose losses are a hash of two tokens: deterministic, without weights, and as fast or slow as a test wants.
/// </summary>
internal sealed class HashModel : IReferenceModel
{
    private long _tokens;
    private int _batches;

    public string Fingerprint { get; init; } = "sha256:" + new string('a', 64);

    public string TokenizerFingerprint { get; init; } = "sha256:" + new string('b', 64);

    public int VocabularySize { get; init; } = 1000;

    public int ContextLength { get; init; } = 65_536;

    public string Description => "hash model";

    public int MaxTopK { get; init; } = 16;

    /// <summary>Tokens per second of a simulated accelerator, which leaves the processor alone; 0: no waiting.</summary>
    public double Rate { get; init; }

    /// <summary>Lets losses depend on the number of sequences in a batch, as rounding does in real models.</summary>
    public bool DependsOnBatch { get; init; }

    /// <summary>Added to every loss: another model under the same fingerprint.</summary>
    public float Shift { get; init; }

    /// <summary>After this many batches the next ones wait until their work is cancelled.</summary>
    public int HoldAfter { get; init; } = int.MaxValue;

    /// <summary>Called with each batch's tokens before it is scored.</summary>
    public Action<int[]>? OnBatch { get; set; }

    public long TokensScored => Interlocked.Read(ref _tokens);

    public int Batches => Volatile.Read(ref _batches);

    public bool IsDisposed { get; private set; }

    public static float Loss(int before, int token) =>
        (uint)HashCode(before, token) % 10_000 / 1000f;

    public void Score(ReadOnlySpan<int> tokens, ReadOnlySpan<int> lengths, ReadOnlySpan<int> documents, TokenScores scores, CancellationToken cancellation)
    {
        var start = Stopwatch.GetTimestamp();
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        OnBatch?.Invoke(tokens.ToArray());
        if (Batches >= HoldAfter)
        {
            cancellation.WaitHandle.WaitOne();
            cancellation.ThrowIfCancellationRequested();
        }

        var at = 0;
        foreach (var length in lengths)
        {
            for (var t = 0; t < length; t++, at++)
            {
                var none = t == 0 || (!documents.IsEmpty && (documents[at] < 0 || documents[at] != documents[at - 1]));
                scores.Losses[at] = none ? float.NaN : Loss(tokens[at - 1], tokens[at]) + Shift + (DependsOnBatch ? lengths.Length * 0.01f : 0);
                SayMore(scores, at, tokens[at]);
            }
        }

        if (Rate > 0)
        {
            var left = TimeSpan.FromSeconds(tokens.Length / Rate) - Stopwatch.GetElapsedTime(start);
            if (left > TimeSpan.Zero) cancellation.WaitHandle.WaitOne(left);
            cancellation.ThrowIfCancellationRequested();
        }

        Interlocked.Add(ref _tokens, tokens.Length);
        Interlocked.Increment(ref _batches);
    }

    public void Dispose() => IsDisposed = true;

    private void SayMore(TokenScores scores, int at, int token)
    {
        var loss = scores.Losses[at];
        if (scores.Entropies.Length > 0) scores.Entropies[at] = loss / 2;
        for (var k = 0; k < scores.TopK; k++)
        {
            scores.TopIds[at * scores.TopK + k] = float.IsNaN(loss) ? 0 : (token + k) % VocabularySize;
            scores.TopLogProbabilities[at * scores.TopK + k] = float.IsNaN(loss) ? float.NaN : -k - 0.5f;
        }
    }

    private static int HashCode(int a, int b)
    {
        var x = unchecked((uint)(a * 0x9E3779B1) ^ (uint)(b * 0x85EBCA6B));
        x ^= x >> 15;
        x *= 0x2C1B3C6D;
        x ^= x >> 12;
        return (int)(x & int.MaxValue);
    }
}

using System.Buffers;
using System.Runtime.InteropServices;
using Rho.Kernels;

namespace Rho.Serving.Engine;

/// <summary>
/// Draws one sequence's tokens. Every draw is a function of logits, settings, seed and the number of tokens drawn before: nothing
/// else in the batch, and no preemption, changes it.
/// </summary>
internal sealed class Sampler
{
    private readonly SamplingSettings _settings;
    private readonly ulong _seed;
    private readonly Dictionary<int, int> _counts = [];
    private readonly HashSet<int>? _seen;
    private readonly List<Candidate> _candidates = [];
    private int _drawn;

    /// <param name="choice">Which of the request's continuations this is; each has its own random numbers.</param>
    public Sampler(SamplingSettings settings, IReadOnlyList<int> prompt, ulong seed, int choice)
    {
        _settings = settings;
        _seed = Mix(seed + (0x9E3779B97F4A7C15UL * (ulong)choice));
        _seen = settings.RepetitionPenalty == 1 ? null : [.. prompt];
    }

    /// <summary>Draws the next token. Changes the logits.</summary>
    /// <param name="banned">Tokens that cannot come now.</param>
    /// <param name="allowed">One bit per token; empty where all may come.</param>
    public ScoredToken Draw(Span<float> logits, IEnumerable<int> banned, ReadOnlySpan<ulong> allowed)
    {
        var raw = _settings.LogProbabilities is null ? null : ArrayPool<float>.Shared.Rent(logits.Length);
        if (raw is not null) logits.CopyTo(raw);
        Adjust(logits, banned, allowed);
        var token = _settings.Temperature == 0 ? Softmax.IndexOfMax(logits) : Sample(logits);
        _drawn++;
        ref var times = ref CollectionsMarshal.GetValueRefOrAddDefault(_counts, token, out _);
        times++;
        _seen?.Add(token);
        if (raw is null) return ScoredToken.Unscored(token);
        var scored = LogProbabilities.Of(raw.AsSpan(0, logits.Length), token, _settings.LogProbabilities!.Value);
        ArrayPool<float>.Shared.Return(raw);
        return scored;
    }

    private void Adjust(Span<float> logits, IEnumerable<int> banned, ReadOnlySpan<ulong> allowed)
    {
        if (_seen is not null)
        {
            foreach (var token in _seen)
                logits[token] = logits[token] > 0 ? logits[token] / _settings.RepetitionPenalty : logits[token] * _settings.RepetitionPenalty;
        }

        if (_settings.PresencePenalty != 0 || _settings.FrequencyPenalty != 0)
        {
            foreach (var (token, times) in _counts) logits[token] -= _settings.PresencePenalty + (times * _settings.FrequencyPenalty);
        }

        foreach (var (token, bias) in _settings.LogitBias) logits[token] += bias;
        foreach (var token in banned) logits[token] = float.NegativeInfinity;
        if (allowed.Length == 0) return;
        for (var token = 0; token < logits.Length; token++)
        {
            if ((allowed[token >> 6] >> (token & 63) & 1) == 0) logits[token] = float.NegativeInfinity;
        }
    }

    /// <summary>Softmax of logits / temperature, cut to top_k, then top_p of what is left, then min_p; one draw from it.</summary>
    private int Sample(Span<float> logits)
    {
        var scale = 1 / _settings.Temperature;
        var largest = logits[Softmax.IndexOfMax(logits)];
        if (float.IsNegativeInfinity(largest)) return Softmax.IndexOfMax(logits);
        var uniform = Uniform();
        if (_settings.TopK == 0 && _settings.TopP == 1 && _settings.MinP == 0) return DrawFromAll(logits, largest, scale, uniform);

        CollectCandidates(logits, largest, scale);
        double total = 0;
        foreach (var candidate in _candidates) total += candidate.Weight;

        var kept = _candidates.Count;
        if (_settings.TopP < 1)
        {
            double mass = 0;
            for (kept = 0; kept < _candidates.Count && mass < _settings.TopP * total; kept++) mass += _candidates[kept].Weight;
            if (kept > 1 && _candidates[kept - 1].Token < 0) kept--;
        }

        // Weights are relative to the most likely token's, which is 1.
        if (_settings.MinP > 0)
        {
            while (kept > 1 && _candidates[kept - 1].Weight < _settings.MinP) kept--;
        }

        double keptTotal = 0;
        for (var i = 0; i < kept; i++) keptTotal += _candidates[i].Weight;
        var target = uniform * keptTotal;
        for (var i = 0; i < kept; i++)
        {
            target -= _candidates[i].Weight;
            if (target < 0) return _candidates[i].Token;
        }

        return _candidates[kept - 1].Token;
    }

    private static int DrawFromAll(Span<float> logits, float largest, float scale, double uniform)
    {
        Softmax.Exp(logits, largest, scale);
        double total = 0;
        foreach (var weight in logits) total += weight;
        var target = uniform * total;
        var last = 0;
        for (var token = 0; token < logits.Length; token++)
        {
            if (logits[token] == 0) continue;
            last = token;
            target -= logits[token];
            if (target < 0) return token;
        }

        return last;
    }

    /// <summary>
    /// Fills _candidates with all tokens that top_k and top_p can keep (and more, where only top_p decides), most likely first. Looks
    /// at the few tokens near the largest logit first and widens until they hold enough.
    /// </summary>
    private void CollectCandidates(Span<float> logits, float largest, float scale)
    {
        var needed = _settings.TopK > 0 ? Math.Min(_settings.TopK, logits.Length) : logits.Length;
        double total = double.NaN;
        for (var width = 4f; ; width *= 4)
        {
            var all = width > 200;
            var floor = all ? float.NegativeInfinity : largest - (width * _settings.Temperature);
            _candidates.Clear();
            double mass = 0;
            for (var token = 0; token < logits.Length; token++)
            {
                if (logits[token] < floor || float.IsNegativeInfinity(logits[token])) continue;
                var weight = MathF.Exp((logits[token] - largest) * scale);
                _candidates.Add(new Candidate(token, weight));
                mass += weight;
            }

            if (!all && _candidates.Count < needed)
            {
                // Without top_k the tokens found are enough once they hold top_p of the whole mass, or min_p cuts the rest.
                if (_settings.TopK > 0) continue;
                var minimumFound = _settings.MinP > 0 && MathF.Exp(-width) < _settings.MinP;
                if (_settings.TopP == 1 && !minimumFound) continue;
                if (_settings.TopP < 1)
                {
                    if (double.IsNaN(total)) total = Softmax.SumOfExp(logits, largest, scale);
                    if (mass < _settings.TopP * total) continue;

                    // top_p counts against the whole mass: what was not collected is one candidate behind all others.
                    Sort();
                    _candidates.Add(new Candidate(-1, Math.Max(0, total - mass)));
                    return;
                }
            }

            Sort();
            if (_candidates.Count > needed) _candidates.RemoveRange(needed, _candidates.Count - needed);
            return;
        }
    }

    private void Sort() => _candidates.Sort(static (a, b) => a.Weight != b.Weight ? b.Weight.CompareTo(a.Weight) : a.Token.CompareTo(b.Token));

    /// <summary>The draw's random number in [0, 1): a hash of seed and count (SplitMix64).</summary>
    private double Uniform() => (Mix(_seed + (0x9E3779B97F4A7C15UL * (ulong)(_drawn + 1))) >> 11) * (1.0 / (1UL << 53));

    private static ulong Mix(ulong value)
    {
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9UL;
        value = (value ^ (value >> 27)) * 0x94D049BB133111EBUL;
        return value ^ (value >> 31);
    }

    /// <param name="Weight">Probability relative to the most likely token's.</param>
    private readonly record struct Candidate(int Token, double Weight);
}

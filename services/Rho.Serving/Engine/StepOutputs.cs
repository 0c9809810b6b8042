using Rho.Model.Inference;

namespace Rho.Serving.Engine;

/// <summary>
/// The positions of a step whose logits are needed, in the batch's order, and what came of them: a prompt's token is scored, or the
/// next token drawn.
/// </summary>
/// <param name="logitsBytes">Bytes of logits held at once.</param>
internal sealed class StepOutputs(long logitsBytes)
{
    private const int MostRows = 4096;
    private readonly List<StepOutput> _outputs = [];
    private float[] _logits = [];

    public int Count => _outputs.Count;

    public StepOutput this[int index] => _outputs[index];

    public void Clear() => _outputs.Clear();

    /// <summary>Asks for the log-probability of a prompt's token.</summary>
    public void AddScore(Sequence sequence, int target) => _outputs.Add(new StepOutput(sequence, target));

    /// <summary>Asks for a sequence's next token.</summary>
    public void AddDraw(Sequence sequence) => _outputs.Add(new StepOutput(sequence, -1));

    /// <summary>Scores and draws in parallel, a bounded number of logits at a time.</summary>
    /// <param name="model">Has computed the step.</param>
    public void Read(DecodingModel model)
    {
        var vocabulary = model.Config.VocabularySize;
        var rows = (int)Math.Clamp(logitsBytes / (vocabulary * sizeof(float)), 1, MostRows);
        for (var first = 0; first < _outputs.Count; first += rows)
        {
            var begin = first;
            var count = Math.Min(rows, _outputs.Count - first);
            if (_logits.Length < (long)count * vocabulary) _logits = new float[count * vocabulary];
            model.Logits(first, count, _logits);
            model.Parallel(count, (_, i) => _outputs[begin + i] = Read(_outputs[begin + i], _logits.AsSpan(i * vocabulary, vocabulary)));
        }
    }

    private static StepOutput Read(StepOutput output, Span<float> logits)
    {
        var sequence = output.Sequence;
        if (output.IsScore) return output with { Result = LogProbabilities.Of(logits, output.Target, sequence.Generation.Request.PromptLogProbabilities ?? 0) };
        try
        {
            return output with { Result = ConstrainedDraw.Next(sequence.Sampler, sequence.Matcher, sequence.Banned, logits) };
        }
        catch (RhoException exception)
        {
            return output with { Failure = exception };
        }
    }
}

/// <summary>One of a step's outputs.</summary>
/// <param name="Target">The prompt's token to score, or -1 to draw the next one.</param>
/// <param name="Failure">Why no token could be drawn.</param>
internal readonly record struct StepOutput(Sequence Sequence, int Target, ScoredToken Result = default, RhoException? Failure = null)
{
    public bool IsScore => Target >= 0;
}

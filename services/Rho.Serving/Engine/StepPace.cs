namespace Rho.Serving.Engine;

/// <summary>How fast an engine's steps are: a mean that forgets, each step counting a tenth. Written by the engine's loop, read by all.</summary>
internal sealed class StepPace(EngineOptions options)
{
    private const int LeastPromptTokens = 32;
    private double _secondsPerToken;

    /// <summary>0 before the first step.</summary>
    public double SecondsPerToken => Volatile.Read(ref _secondsPerToken);

    /// <summary>Tokens of a step beside running continuations, so that it takes about the time that is wanted.</summary>
    public int PromptBudget => SecondsPerToken == 0
        ? options.MaxStepTokens
        : (int)Math.Clamp(options.StepTime.TotalSeconds / SecondsPerToken, Math.Min(LeastPromptTokens, options.MaxStepTokens), options.MaxStepTokens);

    public void Observe(double seconds, int tokens)
    {
        var last = SecondsPerToken;
        Volatile.Write(ref _secondsPerToken, last == 0 ? seconds / tokens : (0.9 * last) + (0.1 * seconds / tokens));
    }
}

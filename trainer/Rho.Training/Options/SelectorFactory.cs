using Rho.Selection;

namespace Rho.Training;

/// <summary>What a selector looks at.</summary>
/// <param name="TopK">How many of the reference's most likely tokens; 0 for none.</param>
internal readonly record struct ReferenceNeeds(LossKinds Kinds, int TopK)
{
    public bool Entropies => Kinds.HasFlag(LossKinds.ReferenceEntropy);

    /// <summary>Whether anything but the current losses is needed.</summary>
    public bool Reference => (Kinds & (LossKinds.Reference | LossKinds.ReferenceEntropy | LossKinds.Divergence)) != LossKinds.None;

    /// <summary>Whether the losses of reference.history are needed.</summary>
    public bool History => Kinds.HasFlag(LossKinds.History);

    public bool Words => Kinds.HasFlag(LossKinds.Words);
}

/// <summary>Selectors and ratio schedules from a run file's sections.</summary>
internal static class SelectorFactory
{
    private const int DefaultTopK = 8;

    /// <summary>The global batch is ranked by giving the selector all of it at once.</summary>
    internal static ITokenSelector Create(SelectorSection section, ObjectiveScope scope) =>
        Create(section, scope == ObjectiveScope.Sequence ? SelectionScope.Sequence : SelectionScope.Batch);

    private static ITokenSelector Create(SelectorSection section, SelectionScope scope)
    {
        if (section.AllOf is { } all) return new IntersectionOf(Parts(all, scope));
        if (section.AnyOf is { } any) return new UnionOf(Parts(any, scope));
        ITokenScore score = section.ExcessOf is [var first, var second] ? new LossDifference(first, second) : section.By switch
        {
            SelectorCriterion.ReferenceLoss => new ReferenceLoss(),
            SelectorCriterion.ReferenceEntropy => new ReferenceEntropy(),
            SelectorCriterion.Divergence => new ReferenceDivergence(),
            SelectorCriterion.CurrentLoss => new CurrentLoss(),
            SelectorCriterion.Random => new RandomScore(),
            _ => new ExcessLoss(),
        };
        if (section.Temperature is { } temperature) return new SoftTokens(score, temperature, scope);
        return section.Unit switch
        {
            SelectorUnit.Word => new TopWords(score, WordScore.Mean, scope),
            SelectorUnit.Sequence => new TopSequences(score),
            _ => new TopTokens(score, scope),
        };
    }

    /// <summary>What an objective needs to be told beside the current losses.</summary>
    internal static ReferenceNeeds Needs(ObjectiveSection objective)
    {
        if (objective.Kind == ObjectiveKind.Clm) return new ReferenceNeeds(LossKinds.None, 0);
        return new ReferenceNeeds(Create(objective.Selector, objective.Scope).Needs, TopKs(objective.Selector).DefaultIfEmpty(0).Max());
    }

    /// <summary>The top_k of each part that looks at a divergence.</summary>
    internal static IEnumerable<int> TopKs(SelectorSection section) => (section.AllOf ?? section.AnyOf) is { } parts
        ? parts.SelectMany(TopKs)
        : section.By == SelectorCriterion.Divergence ? [section.TopK ?? DefaultTopK] : [];

    private static SelectorPart[] Parts(IReadOnlyList<SelectorSection> parts, SelectionScope scope) =>
        [.. parts.Select(part => new SelectorPart(Create(part, scope), part.Ratio))];

    internal static RatioSchedule CreateRatio(ObjectiveSection objective, long steps)
    {
        if (objective.RatioSchedule is not { } schedule) return new ConstantRatio(objective.Ratio);
        return schedule.Kind switch
        {
            RatioScheduleKind.Linear => new LinearRatio(objective.Ratio, schedule.To!.Value, schedule.Steps ?? steps),
            RatioScheduleKind.Cosine => new CosineRatio(objective.Ratio, schedule.To!.Value, schedule.Steps ?? steps),
            _ => new AdaptiveRatio(objective.Ratio, schedule.Floor, schedule.Ceiling),
        };
    }
}

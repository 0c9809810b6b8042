using Rho.Selection;

namespace Rho.Training;

/// <summary>Selectors and ratio schedules from a run file's sections.</summary>
internal static class SelectorFactory
{
    /// <summary>The global batch is ranked by giving the selector all of it at once.</summary>
    internal static ITokenSelector Create(SelectorSection section, ObjectiveScope scope) =>
        Create(section, scope == ObjectiveScope.Sequence ? SelectionScope.Sequence : SelectionScope.Batch);

    private static ITokenSelector Create(SelectorSection section, SelectionScope scope)
    {
        if (section.AllOf is { } all) return new IntersectionOf(Parts(all, scope));
        if (section.AnyOf is { } any) return new UnionOf(Parts(any, scope));
        ITokenScore score = section.By switch
        {
            SelectorCriterion.ReferenceLoss => new ReferenceLoss(),
            SelectorCriterion.ReferenceEntropy => new ReferenceEntropy(),
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

using Rho.Torch;

namespace Rho.Training;

/// <summary>Rules that hold between fields of a run file.</summary>
internal static class RunFileRules
{
    internal static void Check(RunFile run, List<string> errors)
    {
        void Require(bool condition, string error)
        {
            if (!condition) errors.Add(error);
        }

        Require(run.Output.Length > 0, "output is empty, to be a folder");
        CheckModel(run.Model, Require);

        Require(run.Data.Corpora.Count > 0, "data.corpora is empty, to have at least one corpus");
        var weighted = run.Data.Corpora.Count(corpus => corpus.Weight is not null);
        Require(weighted == 0 || weighted == run.Data.Corpora.Count, "data.corpora: either all corpora have a weight or none");
        Require(run.Steps is null || run.Tokens is null, "steps and tokens are both given, to be one of them");
        Require(run.Steps is not null || run.Tokens is not null || run.Data.Corpora.All(corpus => corpus.Epochs is not null),
            "steps is missing (or tokens, or epochs of every corpus): the run would have no end");

        CheckObjective(run, Require);
        CheckReference(run.Reference, Require);

        var sets = run.Evaluation.Sets.Select(set => set.Name).ToList();
        Require(sets.Distinct(StringComparer.Ordinal).Count() == sets.Count, "evaluation.sets: two sets have the same name");
        if (run.Checkpoints.KeepBestBy is { } best)
            Require(sets.Contains(best), $"checkpoints.keep_best_by is \"{best}\", to be the name of one of evaluation.sets");
        Require(Devices.IsName(run.Compute.Device),
            $"compute.device is \"{run.Compute.Device}\", to be \"auto\", \"cpu\", \"cuda\" or \"cuda:N\"");
        if (run is { Steps: { } steps, Schedule.WarmupSteps: { } warmup })
            Require(warmup <= steps, $"schedule.warmup_steps is {warmup}, more than the run's {steps} steps");
    }

    private static void CheckModel(ModelSection model, Action<bool, string> require)
    {
        require(model.From is null != model.Config is null, model.From is null
            ? "model.from is missing (or model.config, to train from scratch)"
            : "model.from and model.config are both given, to be one of them");
        if (model.Config is not { } config) return;
        require(model.Tokenizer is not null, "model.tokenizer is missing: a model from scratch needs the folder of a tokenizer");
        require(config.HiddenSize % config.Heads == 0, $"model.config.heads is {config.Heads}, which does not divide hidden_size {config.HiddenSize}");
        require(config.HiddenSize / config.Heads % 2 == 0 || config.HiddenSize % config.Heads != 0,
            $"model.config.heads is {config.Heads}: {config.HiddenSize / config.Heads} values a head cannot be rotated in pairs");
        if (config.KeyValueHeads is { } heads)
            require(config.Heads % heads == 0, $"model.config.key_value_heads is {heads}, which does not divide heads {config.Heads}");
    }

    private static void CheckObjective(RunFile run, Action<bool, string> require)
    {
        var objective = run.Objective;
        CheckSelector(objective.Selector, "objective.selector", part: false, require);
        if (objective.RatioSchedule is { } schedule)
        {
            require(schedule.Kind == RatioScheduleKind.Adaptive || schedule.To is not null, "objective.ratio_schedule.to is missing");
            require(schedule.Floor <= schedule.Ceiling, $"objective.ratio_schedule.floor is {schedule.Floor}, above ceiling {schedule.Ceiling}");
        }

        if (objective.Kind == ObjectiveKind.Clm) return;
        var needs = SelectorFactory.Needs(objective);
        if (needs.Entropies || needs.TopK > 0)
            require(run.Reference.Sources.Count < 2, $"objective.selector looks at {(needs.Entropies ? "reference_entropy" : "divergence")}, which needs a single reference: reference.sources has {run.Reference.Sources.Count}, and {(needs.Entropies ? "the entropy" : "the most likely tokens")} of their mixture cannot be had from theirs");
        require(SelectorFactory.TopKs(objective.Selector).Distinct().Count() < 2, "objective.selector has parts of different top_k, to be one");
        require(!needs.History || run.Reference.History is not null, "reference.history is missing: objective.selector.excess_of looks at it (scorers, scores or a model)");
        var adaptive = objective.RatioSchedule?.Kind == RatioScheduleKind.Adaptive;
        if (needs.Reference || adaptive)
            require(run.Reference.Sources.Count > 0 || run.Reference.MovingAverageDecay is not null,
                "reference.sources is empty: this objective compares with a reference (scorers, scores, a model, or reference.moving_average_decay)");
    }

    private static void CheckSelector(SelectorSection selector, string path, bool part, Action<bool, string> require)
    {
        require(selector.AllOf is null || selector.AnyOf is null, $"{path}: all_of and any_of are both given, to be one of them");
        require(selector.ExcessOf is null || (selector.ExcessOf.Count == 2 && selector.ExcessOf[0] != selector.ExcessOf[1]), $"{path}.excess_of is to be two different ones of \"current\", \"reference\" and \"history\"");
        require(selector.ExcessOf is null || (selector.AllOf is null && selector.AnyOf is null), $"{path}: excess_of goes without all_of and any_of, or in their parts");
        require(part || selector.Ratio is null, $"{path}.ratio belongs to parts of all_of or any_of; the whole has objective.ratio");
        require(selector.Temperature is null || selector.Unit == SelectorUnit.Token, $"{path}.temperature goes with unit \"token\"");
        require(selector.TopK is null || (selector.By == SelectorCriterion.Divergence && selector.AllOf is null && selector.AnyOf is null), $"{path}.top_k goes with by \"divergence\"");
        var (name, parts) = selector.AllOf is not null ? ("all_of", selector.AllOf) : ("any_of", selector.AnyOf);
        if (parts is null) return;
        require(parts.Count >= 2, $"{path}.{name} has {parts.Count} parts, to have at least two");
        for (var i = 0; i < parts.Count; i++) CheckSelector(parts[i], $"{path}.{name}[{i}]", part: true, require);
    }

    private static void CheckReference(ReferenceSection reference, Action<bool, string> require)
    {
        require(reference.MovingAverageDecay is null || reference.Sources.Count == 0, "reference.sources and reference.moving_average_decay are both given, to be one of them");
        for (var i = 0; i < reference.Sources.Count; i++) CheckSource(reference.Sources[i], $"reference.sources[{i}]", require);
        if (reference.History is { } history) CheckSource(history, "reference.history", require);
    }

    private static void CheckSource(ReferenceSourceSection source, string path, Action<bool, string> require)
    {
        var given = (source.Scorers is not null ? 1 : 0) + (source.Scores is not null ? 1 : 0) + (source.Model is not null ? 1 : 0);
        require(given == 1, $"{path} is to have one of scorers, scores and model");
        require(source.Scorers is not { Count: 0 }, $"{path}.scorers is empty");
        require(source.ClientCertificate is null == source.ClientKey is null, $"{path}: client_certificate and client_key go together");
    }
}

/// <summary>Makes the paths of a run file absolute, so that its copy in the output folder means the same.</summary>
internal static class RunFilePaths
{
    internal static RunFile Resolve(RunFile run, string baseDirectory)
    {
        string Full(string path) => Path.GetFullPath(path, Path.GetFullPath(baseDirectory));
        string? Maybe(string? path) => path is null ? null : Full(path);
        ReferenceSourceSection Source(ReferenceSourceSection source) => source with
        {
            Scores = Maybe(source.Scores),
            Model = Maybe(source.Model),
            ApiKeyFile = Maybe(source.ApiKeyFile),
            CertificateAuthority = Maybe(source.CertificateAuthority),
            ClientCertificate = Maybe(source.ClientCertificate),
            ClientKey = Maybe(source.ClientKey),
        };
        var output = Full(run.Output);
        return run with
        {
            Output = output,
            Name = run.Name ?? Path.GetFileName(Path.TrimEndingDirectorySeparator(output)),
            Model = run.Model with { From = Maybe(run.Model.From), Tokenizer = Maybe(run.Model.Tokenizer) },
            Data = run.Data with { Corpora = [.. run.Data.Corpora.Select(corpus => corpus with { Path = Full(corpus.Path), Mask = Maybe(corpus.Mask) })] },
            Reference = run.Reference with
            {
                Sources = [.. run.Reference.Sources.Select(Source)],
                History = run.Reference.History is { } history ? Source(history) : null,
            },
            Evaluation = run.Evaluation with { Sets = [.. run.Evaluation.Sets.Select(set => set with { Corpus = Full(set.Corpus) })] },
        };
    }
}

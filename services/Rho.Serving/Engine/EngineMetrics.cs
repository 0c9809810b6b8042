using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using Rho.Model.Inference;

namespace Rho.Serving.Engine;

/// <summary>What the engines measure, per model: under rho_serving_ names, and on wish under vLLM's, for dashboards and autoscalers that know those.</summary>
public sealed class EngineMetrics
{
    private readonly ConcurrentDictionary<string, Snapshot> _snapshots = new(StringComparer.Ordinal);
    private readonly List<Instruments> _instruments = [];

    /// <param name="vllmNames">Whether to publish everything under vLLM's names too.</param>
    public EngineMetrics(IMeterFactory meters, bool vllmNames)
    {
        _instruments.Add(new Instruments(meters.Create("Rho.Serving"), _snapshots, Names.Rho));
        if (vllmNames) _instruments.Add(new Instruments(meters.Create("vllm"), _snapshots, Names.Vllm));
    }

    internal void Publish(string model, EngineState state, Scheduler scheduler) =>
        _snapshots[model] = new Snapshot(state, scheduler.PrefixQueries, scheduler.PrefixHits, scheduler.Preemptions);

    internal void Forget(string model) => _snapshots.TryRemove(model, out _);

    internal void Queued(string model, TimeSpan time) => Each(x => x.QueueTime.Record(time.TotalSeconds, x.Model(model)));

    internal void FirstToken(string model, TimeSpan time) => Each(x => x.FirstToken.Record(time.TotalSeconds, x.Model(model)));

    internal void BetweenTokens(string model, TimeSpan time) => Each(x => x.BetweenTokens.Record(time.TotalSeconds, x.Model(model)));

    internal void Finished(string model, FinishReason reason) =>
        Each(x => x.Success.Add(1, x.Model(model), new("finished_reason", reason == FinishReason.Stop ? "stop" : "length")));

    /// <summary>A request has ended whole.</summary>
    /// <param name="time">From its acceptance.</param>
    /// <param name="prefill">From its first computation to its first token.</param>
    /// <param name="decode">From its first token on.</param>
    internal void Ended(string model, Generation generation, TimeSpan time, TimeSpan prefill, TimeSpan decode) => Each(x =>
    {
        var usage = generation.Usage;
        var sampling = generation.Request.Sampling;
        x.Latency.Record(time.TotalSeconds, x.Model(model));
        x.Computation.Record((prefill + decode).TotalSeconds, x.Model(model));
        x.Prefill.Record(prefill.TotalSeconds, x.Model(model));
        x.Decode.Record(decode.TotalSeconds, x.Model(model));
        if (usage.CompletionTokens > sampling.Choices)
            x.TimePerToken.Record(decode.TotalSeconds * sampling.Choices / (usage.CompletionTokens - sampling.Choices), x.Model(model));
        x.PromptTokens.Add(usage.PromptTokens, x.Model(model));
        x.GeneratedTokens.Add(usage.CompletionTokens, x.Model(model));
        x.RequestPrompt.Record(usage.PromptTokens, x.Model(model));
        x.RequestGenerated.Record(usage.CompletionTokens, x.Model(model));
        x.RequestChoices.Record(sampling.Choices, x.Model(model));
        if (sampling.MaxTokens is { } most) x.RequestMost.Record(most, x.Model(model));
    });

    internal void Dropped(string model, string outcome) => Each(x => x.Dropped.Add(1, x.Model(model), new("outcome", outcome)));

    internal void Stepped(string model, double seconds, int tokens) => Each(x =>
    {
        x.StepTime.Record(seconds, x.Model(model));
        x.StepTokens.Record(tokens, x.Model(model));
    });

    private void Each(Action<Instruments> record)
    {
        foreach (var instruments in _instruments) record(instruments);
    }

    private sealed record Snapshot(EngineState State, long PrefixQueries, long PrefixHits, long Preemptions);

    /// <summary>Metric names of one convention, without the endings that the exporter adds.</summary>
    private sealed record Names(
        string Running, string Waiting, string CacheUsage, string PrefixQueries, string PrefixHits, string Preemptions, string QueueTime, string FirstToken,
        string BetweenTokens, string Latency, string Success, string Dropped, string PromptTokens, string GeneratedTokens, string StepTime, string StepTokens,
        string Computation, string Prefill, string Decode, string TimePerToken, string RequestPrompt, string RequestGenerated, string RequestChoices, string RequestMost,
        string Cache, string ModelTag)
    {
        public static readonly Names Rho = new(
            "rho.serving.sequences.running", "rho.serving.sequences.waiting", "rho.serving.cache.usage", "rho.serving.prefix.tokens.asked",
            "rho.serving.prefix.tokens.reused", "rho.serving.preemptions", "rho.serving.queue_time_seconds", "rho.serving.time_to_first_token_seconds",
            "rho.serving.time_between_tokens_seconds", "rho.serving.request_time_seconds", "rho.serving.choices.finished", "rho.serving.requests.dropped",
            "rho.serving.prompt_tokens", "rho.serving.generated_tokens", "rho.serving.step_time_seconds", "rho.serving.step_tokens",
            "rho.serving.request_computation_time_seconds", "rho.serving.request_prompt_time_seconds", "rho.serving.request_generation_time_seconds",
            "rho.serving.request_time_per_token_seconds", "rho.serving.request_prompt_tokens", "rho.serving.request_generated_tokens", "rho.serving.request_choices",
            "rho.serving.request_max_tokens", "rho.serving.cache.blocks", "model");

        public static readonly Names Vllm = new(
            "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:prefix_cache_queries", "vllm:prefix_cache_hits",
            "vllm:num_preemptions", "vllm:request_queue_time_seconds", "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds",
            "vllm:e2e_request_latency_seconds", "vllm:request_success", "vllm:request_dropped", "vllm:prompt_tokens", "vllm:generation_tokens",
            "vllm:iteration_time_seconds", "vllm:iteration_tokens_total", "vllm:request_inference_time_seconds", "vllm:request_prefill_time_seconds",
            "vllm:request_decode_time_seconds", "vllm:request_time_per_output_token_seconds", "vllm:request_prompt_tokens", "vllm:request_generation_tokens",
            "vllm:request_params_n", "vllm:request_params_max_tokens", "vllm:cache_config_info", "model_name");
    }

    private sealed class Instruments
    {
        private readonly Names _names;

        public Instruments(Meter meter, ConcurrentDictionary<string, Snapshot> snapshots, Names names)
        {
            _names = names;
            IEnumerable<Measurement<T>> Read<T>(Func<Snapshot, T> value) where T : struct =>
                snapshots.Select(entry => new Measurement<T>(value(entry.Value), Model(entry.Key)));
            meter.CreateObservableGauge(names.Running, () => Read(x => x.State.Running), description: "Sequences that are being computed.");
            meter.CreateObservableGauge(names.Waiting, () => Read(x => x.State.Waiting), description: "Sequences that wait for room.");
            meter.CreateObservableGauge(names.CacheUsage, () => Read(x => (double)x.State.BlocksHeld / x.State.Blocks), description: "Share of the key-value cache held by sequences, 0 to 1.");
            meter.CreateObservableCounter(names.PrefixQueries, () => Read(x => x.PrefixQueries), description: "Prompt tokens looked for in the cache.");
            meter.CreateObservableCounter(names.PrefixHits, () => Read(x => x.PrefixHits), description: "Prompt tokens found in the cache.");
            meter.CreateObservableCounter(names.Preemptions, () => Read(x => x.Preemptions), description: "Sequences that gave their cache blocks back and were computed anew.");
            // vLLM's has the numbers as labels, and 1 as value.
            meter.CreateObservableGauge(
                names.Cache,
                () => snapshots.Select(entry => names == Names.Vllm
                    ? new Measurement<int>(1, Model(entry.Key), new("block_size", DecodingModel.BlockTokens), new("num_gpu_blocks", entry.Value.State.Blocks))
                    : new Measurement<int>(entry.Value.State.Blocks, Model(entry.Key))),
                description: $"Blocks of the key-value cache, of {DecodingModel.BlockTokens} tokens each.");
            QueueTime = meter.CreateHistogram<double>(names.QueueTime, "s", description: "From acceptance to a request's first computation, in seconds.");
            FirstToken = meter.CreateHistogram<double>(names.FirstToken, "s", description: "From acceptance to the first token, in seconds.");
            BetweenTokens = meter.CreateHistogram<double>(names.BetweenTokens, "s", description: "From one token of a sequence to the next, in seconds.");
            Latency = meter.CreateHistogram<double>(names.Latency, "s", description: "From acceptance to the end of a request, in seconds.");
            Success = meter.CreateCounter<long>(names.Success, description: "Continuations that ended whole, by reason.");
            Dropped = meter.CreateCounter<long>(names.Dropped, description: "Requests that ended otherwise: cancelled or failed.");
            PromptTokens = meter.CreateCounter<long>(names.PromptTokens, description: "Prompt tokens of requests that ended whole.");
            GeneratedTokens = meter.CreateCounter<long>(names.GeneratedTokens, description: "New tokens of requests that ended whole.");
            StepTime = meter.CreateHistogram<double>(names.StepTime, "s", description: "Time of one step, in seconds.");
            StepTokens = meter.CreateHistogram<int>(names.StepTokens, description: "Tokens computed in one step.");
            Computation = meter.CreateHistogram<double>(names.Computation, "s", description: "From a request's first computation to its end, in seconds.");
            Prefill = meter.CreateHistogram<double>(names.Prefill, "s", description: "From a request's first computation to its first token, in seconds.");
            Decode = meter.CreateHistogram<double>(names.Decode, "s", description: "From a request's first token to its end, in seconds.");
            TimePerToken = meter.CreateHistogram<double>(names.TimePerToken, "s", description: "A request's mean time between tokens, in seconds.");
            RequestPrompt = meter.CreateHistogram<int>(names.RequestPrompt, description: "Prompt tokens of a request.");
            RequestGenerated = meter.CreateHistogram<int>(names.RequestGenerated, description: "New tokens of a request.");
            RequestChoices = meter.CreateHistogram<int>(names.RequestChoices, description: "Continuations that a request asked for.");
            RequestMost = meter.CreateHistogram<int>(names.RequestMost, description: "New tokens that a request asked for at most.");
        }

        public Histogram<double> QueueTime { get; }

        public Histogram<double> FirstToken { get; }

        public Histogram<double> BetweenTokens { get; }

        public Histogram<double> Latency { get; }

        public Counter<long> Success { get; }

        public Counter<long> Dropped { get; }

        public Counter<long> PromptTokens { get; }

        public Counter<long> GeneratedTokens { get; }

        public Histogram<double> StepTime { get; }

        public Histogram<int> StepTokens { get; }

        public Histogram<double> Computation { get; }

        public Histogram<double> Prefill { get; }

        public Histogram<double> Decode { get; }

        public Histogram<double> TimePerToken { get; }

        public Histogram<int> RequestPrompt { get; }

        public Histogram<int> RequestGenerated { get; }

        public Histogram<int> RequestChoices { get; }

        public Histogram<int> RequestMost { get; }

        public KeyValuePair<string, object?> Model(string name) => new(_names.ModelTag, name);
    }
}

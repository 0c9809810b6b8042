using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using Rho.Hosting;
using Rho.Model.Inference;
using Rho.Tokenization;

namespace Rho.Serving.Engine;

/// <summary>
/// Runs one model for many requests at once. One thread owns the model and goes round: (1) take in new requests and drop cancelled
/// ones, (2) schedule a step, (3) compute it, (4) score prompts and draw tokens, (5) send what can be sent and end what is whole.
/// </summary>
public sealed partial class InferenceEngine : IAsyncDisposable
{
    private const int FailuresInARow = 3;

    private readonly DecodingModel _model;
    private readonly Tokenizer _tokenizer;
    private readonly EngineOptions _options;
    private readonly EngineMetrics _metrics;
    private readonly ServiceHealth _health;
    private readonly ServiceHealth.Worker _progress;
    private readonly TimeProvider _time;
    private readonly ILogger _logger;
    private readonly HashSet<int> _ends;
    private readonly int? _letter;
    private readonly BlockPool _pool;
    private readonly Scheduler _scheduler;
    private readonly StepPace _pace;
    private readonly Admission _admission;
    private readonly AutoResetEvent _wake = new(false);
    private readonly TaskCompletionSource _stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ForwardBatch _batch = new();
    private readonly StepOutputs _outputs;
    private long _arrivals;
    private volatile bool _cancelAll;

    /// <param name="model">Owned from now on.</param>
    /// <param name="ends">Token ids that end a continuation.</param>
    /// <param name="name">For the thread, the log and the metrics.</param>
    public InferenceEngine(
        string name, DecodingModel model, Tokenizer tokenizer, IEnumerable<int> ends, EngineOptions options, EngineMetrics metrics, ServiceHealth health,
        TimeProvider time, ILogger logger)
    {
        (_model, _tokenizer, _options, _metrics, _health, _time, _logger) = (model, tokenizer, options, metrics, health, time, logger);
        Name = name;
        _progress = health.Watch($"model {name}");
        _ends = [.. ends];
        _letter = "aeinorst".Select(letter => tokenizer.TokenToId($"{letter}")).FirstOrDefault(id => id is not null);
        _pool = new BlockPool(model.Blocks);
        _scheduler = new Scheduler(_pool, options, model.RecomputeBeyond) { Started = Begin };
        _pace = new StepPace(options);
        _admission = new Admission(name, options, _pace);
        _outputs = new StepOutputs(options.LogitsBytes);
        new Thread(Loop) { IsBackground = true, Name = $"rho-engine-{name}" }.Start();
    }

    public string Name { get; }

    /// <summary>Longest prompt and continuation together, in tokens: what the model and the cache allow.</summary>
    public int ContextLength => (int)Math.Min(_model.Config.ContextLength, (long)_model.Blocks * DecodingModel.BlockTokens);

    /// <summary>Requests accepted and not ended.</summary>
    public int Unfinished => _admission.Unfinished;

    /// <summary>A moment's state, for metrics and tests.</summary>
    public EngineState State { get; private set; } = new(0, 0, 0, 0);

    /// <summary>Steps computed so far.</summary>
    public long Steps { get; private set; }

    /// <summary>Sequences that gave their blocks back and were computed anew.</summary>
    public long Preemptions => _scheduler.Preemptions;

    /// <summary>Throws what <see cref="Submit"/> would throw for a request of so many tokens, before anything is spent on it.</summary>
    public void CheckRoom(long tokens, string client) => _admission.CheckRoom(tokens, client);

    /// <summary>Throws when requests that come together can never all be accepted, however little there is to do.</summary>
    /// <param name="tokens">Of their prompts, each counted once per continuation.</param>
    /// <exception cref="InvalidFieldException">They are more than the queue or a client's share holds.</exception>
    public void CheckPossible(int requests, long tokens) => _admission.CheckPossible(requests, tokens);

    /// <summary>Accepts a request. Whatever is accepted is answered, fails with a reason, or is cancelled by its caller.</summary>
    /// <exception cref="InvalidFieldException">A setting is out of range, or prompt and continuation do not fit the context.</exception>
    /// <exception cref="OverloadedException">The queue or the client's share is full.</exception>
    /// <exception cref="UnavailableException">The engine takes no more requests.</exception>
    public Generation Submit(GenerationRequest request)
    {
        Validate(request);
        var generation = new Generation(request, _time, () => _wake.Set())
        {
            Usage = new GenerationUsage(request.Prompt.Count, 0, 0),
        };
        _admission.Enter(generation);
        _progress.Added();
        _wake.Set();
        return generation;
    }

    /// <summary>Takes no more requests and waits for those accepted; then frees the model.</summary>
    /// <param name="patience">When it is cancelled, what still runs fails as unavailable.</param>
    public async Task CloseAsync(CancellationToken patience = default)
    {
        _admission.Close();
        await using var registration = patience.Register(() =>
        {
            _cancelAll = true;
            _wake.Set();
        });
        _wake.Set();
        await _stopped.Task;
    }

    /// <summary>Fails what runs, and frees the model.</summary>
    public async ValueTask DisposeAsync() => await CloseAsync(new CancellationToken(canceled: true));

    private void Validate(GenerationRequest request)
    {
        var settings = request.Sampling;
        settings.Validate(_model.Config.VocabularySize);
        if (request.PromptLogProbabilities is < 0 or > SamplingSettings.MostAlternatives)
            throw new InvalidFieldException("logprobs", $"{request.PromptLogProbabilities} is not from 0 to {SamplingSettings.MostAlternatives}");
        if (request.Prompt.Count == 0) throw new InvalidFieldException("prompt", "it has no tokens; at least one is needed");
        foreach (var token in request.Prompt)
        {
            if (token < 0 || token >= _model.Config.VocabularySize)
                throw new InvalidFieldException("prompt", $"token {token} is not in the vocabulary (0 to {_model.Config.VocabularySize - 1})");
        }

        var wanted = settings.MaxTokens ?? 1;
        if (request.Prompt.Count + (long)wanted > ContextLength)
        {
            throw new ContextLengthException(
                $"the prompt has {request.Prompt.Count} tokens and max_tokens is {wanted}: together more than the context of {ContextLength} tokens");
        }
    }

    private void Loop()
    {
        var failures = 0;
        try
        {
            while (true)
            {
                TakeIn();
                if (_scheduler.Running.Count + _scheduler.Waiting == 0)
                {
                    PublishState();
                    if (_admission.IsDrained) return;
                    _wake.WaitOne();
                    continue;
                }

                var shares = _scheduler.Next(_pace.PromptBudget);
                PublishState();
                if (shares.Count == 0)
                {
                    // All that runs waits for its readers: look again when one has read, or soon.
                    _wake.WaitOne(10);
                    continue;
                }

                try
                {
                    Step(shares);
                    failures = 0;
                }
                catch (Exception exception) when (++failures < FailuresInARow)
                {
                    StepFailed(Name, exception);
                    foreach (var generation in shares.Select(share => share.Sequence.Generation).Distinct().ToArray()) FailGeneration(generation, exception);
                }
            }
        }
        catch (Exception exception)
        {
            EngineFailed(Name, exception);
            _health.Failed($"the engine of model {Name} stopped: {exception.Message}");
            _admission.Close();
            TakeIn();
            foreach (var generation in _scheduler.All.Select(sequence => sequence.Generation).Distinct().ToArray()) FailGeneration(generation, exception);
        }
        finally
        {
            PublishState();
            _progress.Dispose();
            _model.Dispose();
            _stopped.SetResult();
        }
    }

    private void TakeIn()
    {
        while (_admission.TryTake(out var generation)) AddSequences(generation);
        foreach (var generation in _scheduler.All.Select(sequence => sequence.Generation).Where(generation => generation.IsCancelled || _cancelAll).Distinct().ToArray())
        {
            if (generation.IsCancelled) Drop(generation, new OperationCanceledException("the request was cancelled"), "cancelled");
            else Drop(generation, new UnavailableException($"model {Name} was taken out of service before the request was finished"), "failed");
        }
    }

    private void AddSequences(Generation generation)
    {
        var request = generation.Request;
        var seed = request.Sampling.Seed ?? (ulong)Random.Shared.NextInt64(long.MinValue, long.MaxValue);
        var maxTokens = request.Sampling.MaxTokens ?? (ContextLength - request.Prompt.Count);
        Sequence? leader = null;
        for (var choice = 0; choice < request.Sampling.Choices; choice++)
        {
            var sequence = new Sequence(generation, choice, _arrivals++, seed, maxTokens, _ends, new PlacedDecoder(_tokenizer, skipSpecialTokens: true, request.ContinuesText ? _letter : null)) { Leader = leader };
            leader ??= sequence;
            _scheduler.Add(sequence);
        }
    }

    private void Begin(Sequence sequence)
    {
        if (sequence.Started is not null) return;
        sequence.Started = _time.GetTimestamp();
        if (sequence.Choice > 0) return;
        sequence.Generation.Begun = sequence.Started;
        _admission.Begin(sequence.Generation.Request);
        _metrics.Queued(Name, _time.GetElapsedTime(sequence.Generation.Accepted));
    }

    private void Step(List<Share> shares)
    {
        var start = _time.GetTimestamp();
        FillBatch(shares);
        _model.Forward(_batch);
        _outputs.Read(_model);
        foreach (var share in shares) Advance(share);
        Send(shares);
        // Before the requests end: who waits for that finds the step counted.
        Steps++;
        foreach (var share in shares)
        {
            if (share.Sequence.Finished && !share.Sequence.Generation.HasEnded) End(share.Sequence);
        }

        var seconds = _time.GetElapsedTime(start).TotalSeconds;
        _pace.Observe(seconds, _batch.Count);
        _metrics.Stepped(Name, seconds, _batch.Count);
        _progress.Progressed();
    }

    private void FillBatch(List<Share> shares)
    {
        _batch.Clear();
        _outputs.Clear();
        foreach (var (sequence, count) in shares)
        {
            var tokens = CollectionsMarshal.AsSpan(sequence.Tokens);
            var start = _batch.Add(tokens.Slice(sequence.Computed, count), sequence.Computed, sequence.Blocks, tokens.Length);
            for (var i = 0; i < count; i++)
            {
                var next = sequence.Computed + i + 1;
                if (next == tokens.Length)
                {
                    if (sequence.MaxTokens == 0) continue;
                    _batch.AddOutput(start + i);
                    _outputs.AddDraw(sequence);
                }
                else if (sequence.WantsPromptScores && next < sequence.PromptLength && next >= sequence.PromptScored)
                {
                    _batch.AddOutput(start + i);
                    _outputs.AddScore(sequence, tokens[next]);
                }
            }
        }
    }

    /// <summary>Counts computed tokens and makes full blocks known.</summary>
    private void Advance(Share share)
    {
        var sequence = share.Sequence;
        sequence.Computed += share.Count;
        var tokens = CollectionsMarshal.AsSpan(sequence.Tokens);
        for (; (sequence.FilledBlocks + 1) * DecodingModel.BlockTokens <= sequence.Computed; sequence.FilledBlocks++)
        {
            var content = tokens.Slice(sequence.FilledBlocks * DecodingModel.BlockTokens, DecodingModel.BlockTokens);
            sequence.Chain = _pool.Fill(sequence.Blocks[sequence.FilledBlocks], sequence.Chain, content);
        }
    }

    /// <summary>Sends each sequence's prompt scores and drawn token; a share's outputs follow one another.</summary>
    private void Send(List<Share> shares)
    {
        var next = 0;
        foreach (var (sequence, _) in shares)
        {
            var scores = new List<ScoredToken>();
            if (sequence.WantsPromptScores && sequence.PromptScored == 0) scores.Add(ScoredToken.Unscored(sequence.Tokens[0]));
            ScoredToken? drawn = null;
            RhoException? failure = null;
            for (; next < _outputs.Count && _outputs[next].Sequence == sequence; next++)
            {
                failure = _outputs[next].Failure;
                if (_outputs[next].IsScore) scores.Add(_outputs[next].Result);
                else drawn = _outputs[next].Result;
            }

            sequence.PromptScored += scores.Count;
            if (scores.Count > 0) sequence.Generation.Write(new GenerationChunk { IsPrompt = true, Tokens = scores });
            if (failure is not null) Drop(sequence.Generation, failure, "failed");
            else if (sequence.Generation.HasEnded) continue;
            else if (drawn is { } token) SendToken(sequence, token);
            else if (sequence.MaxTokens == 0 && sequence.Remaining == 0) SendChunk(sequence, sequence.EndAtPrompt());
        }
    }

    private void SendToken(Sequence sequence, ScoredToken token)
    {
        var generation = sequence.Generation;
        var now = _time.GetTimestamp();
        if (generation.FirstToken is null)
        {
            generation.FirstToken = now;
            _metrics.FirstToken(Name, _time.GetElapsedTime(generation.Accepted, now));
        }

        if (sequence.LastToken is { } last) _metrics.BetweenTokens(Name, _time.GetElapsedTime(last, now));
        sequence.LastToken = now;
        generation.Usage = generation.Usage with { CompletionTokens = generation.Usage.CompletionTokens + 1 };
        SendChunk(sequence, sequence.Append(token));
    }

    private void SendChunk(Sequence sequence, GenerationChunk chunk)
    {
        var generation = sequence.Generation;
        if (chunk.Text.Length > 0 || chunk.Tokens.Count > 0 || chunk.Finish is not null) generation.Write(chunk);
        if (chunk.Finish is { } reason) _metrics.Finished(Name, reason);
    }

    /// <summary>Frees what a finished sequence holds; the last of a request ends the request.</summary>
    private void End(Sequence sequence)
    {
        _scheduler.Remove(sequence);
        var generation = sequence.Generation;
        if (!generation.EndChoice()) return;
        var now = _time.GetTimestamp();
        var firstToken = generation.FirstToken ?? now;
        _metrics.Ended(
            Name, generation, _time.GetElapsedTime(generation.Accepted, now), _time.GetElapsedTime(generation.Begun ?? firstToken, firstToken),
            _time.GetElapsedTime(firstToken, now));
        _admission.Leave(generation.Request, waiting: false);
        _progress.Completed();
    }

    private void FailGeneration(Generation generation, Exception exception) =>
        Drop(generation, new InvalidOperationException("the engine failed while computing this request", exception), "failed");

    private void Drop(Generation generation, Exception reason, string outcome)
    {
        var waiting = false;
        foreach (var sequence in _scheduler.All.Where(sequence => sequence.Generation == generation).ToArray())
        {
            waiting |= sequence.Choice == 0 && sequence.Started is null;
            _scheduler.Remove(sequence);
        }

        // First, so that whoever sees the failure finds room for another try.
        _admission.Leave(generation.Request, waiting);
        generation.Fail(reason);
        _metrics.Dropped(Name, outcome);
        _progress.Dropped();
    }

    private void PublishState()
    {
        State = new EngineState(_scheduler.Running.Count, _scheduler.Waiting, _pool.Blocks - _pool.Free, _pool.Blocks);
        _metrics.Publish(Name, State, _scheduler);
    }

    [LoggerMessage(LogLevel.Error, "a step of model {Model} failed; its requests fail, others go on")]
    private partial void StepFailed(string model, Exception exception);

    [LoggerMessage(LogLevel.Critical, "the engine of model {Model} stopped")]
    private partial void EngineFailed(string model, Exception exception);
}

/// <summary>What an engine does at a moment.</summary>
/// <param name="Running">Sequences that hold cache blocks.</param>
/// <param name="Waiting">Sequences that do not.</param>
/// <param name="BlocksHeld">Cache blocks that sequences hold.</param>
public sealed record EngineState(int Running, int Waiting, int BlocksHeld, int Blocks);

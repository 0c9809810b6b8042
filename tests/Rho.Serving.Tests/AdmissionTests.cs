using Rho.Serving.Engine;

namespace Rho.Serving.Tests;

public sealed class AdmissionTests
{
    [Fact]
    public void Enter_QueueFull_IsRefusedUntilOneBeginsOrEnds()
    {
        var admission = Create(new EngineOptions { MaxWaitingRequests = 2 });
        var first = Request(5);
        admission.Enter(first);
        admission.Enter(Request(5));
        Assert.Contains("2 requests wait", Assert.Throws<OverloadedException>(() => admission.Enter(Request(1))).Message, StringComparison.Ordinal);

        admission.Begin(first.Request);
        var third = Request(5);
        admission.Enter(third);
        Assert.Throws<OverloadedException>(() => admission.CheckRoom(1, ""));
        admission.Leave(third.Request, waiting: true);
        admission.CheckRoom(1, "");
        Assert.Equal(2, admission.Unfinished);
    }

    [Fact]
    public void Enter_TokensBeyondTheQueue_AreRefusedUnlessNothingWaits()
    {
        var admission = Create(new EngineOptions { MaxWaitingTokens = 60 });
        // A prompt longer than the queue has a chance when it is alone; each continuation counts it once.
        admission.Enter(Request(100));
        Assert.Contains("100 prompt tokens wait, and 10 more", Assert.Throws<OverloadedException>(() => admission.Enter(Request(5, choices: 2))).Message, StringComparison.Ordinal);
        Assert.True(admission.TryTake(out var taken));
        admission.Begin(taken.Request);
        admission.Enter(Request(30, choices: 2));
        Assert.Throws<OverloadedException>(() => admission.CheckRoom(1, ""));
    }

    [Fact]
    public void Enter_ClientAtItsLimit_IsRefusedWhileOthersAreNot()
    {
        var admission = Create(new EngineOptions { MaxRequestsPerClient = 2 });
        var first = Request(1, client: "a");
        admission.Enter(first);
        admission.Enter(Request(1, client: "a"));
        // Running counts as much as waiting.
        admission.Begin(first.Request);
        Assert.Contains("2 requests under way", Assert.Throws<OverloadedException>(() => admission.Enter(Request(1, client: "a"))).Message, StringComparison.Ordinal);
        admission.Enter(Request(1, client: "b"));
        admission.Leave(first.Request, waiting: false);
        admission.Enter(Request(1, client: "a"));
        Assert.Equal(3, admission.Unfinished);
    }

    [Fact]
    public void Close_RefusesTheNew_AndDrainsWhenTheLastHasLeft()
    {
        var admission = Create(new EngineOptions());
        var request = Request(1);
        admission.Enter(request);
        admission.Close();
        Assert.Throws<UnavailableException>(() => admission.Enter(Request(1)));
        Assert.False(admission.IsDrained);
        // What came in before is still there to be taken, once.
        Assert.True(admission.TryTake(out var taken));
        Assert.Same(request, taken);
        Assert.False(admission.TryTake(out _));
        admission.Leave(request.Request, waiting: true);
        Assert.True(admission.IsDrained);
    }

    [Fact]
    public void RetryAfter_IsTheTimeOfWhatWaits_FromOneToSixtySeconds()
    {
        var options = new EngineOptions { MaxWaitingRequests = 1 };
        var pace = new StepPace(options);
        var admission = new Admission("test", options, pace);
        admission.Enter(Request(1000));
        TimeSpan RetryAfter() => Assert.Throws<OverloadedException>(() => admission.CheckRoom(1, "")).RetryAfter;
        Assert.Equal(TimeSpan.FromSeconds(1), RetryAfter());
        pace.Observe(seconds: 0.1, tokens: 10);
        Assert.Equal(10, RetryAfter().TotalSeconds, 1e-6);
        pace.Observe(seconds: 60, tokens: 10);
        Assert.Equal(TimeSpan.FromSeconds(60), RetryAfter());
    }

    [Fact]
    public void PromptBudget_FollowsTheTimeOfSteps()
    {
        var pace = new StepPace(new EngineOptions { MaxStepTokens = 512, StepTime = TimeSpan.FromMilliseconds(200) });
        Assert.Equal(512, pace.PromptBudget);
        pace.Observe(seconds: 0.2, tokens: 100);
        Assert.Equal(100, pace.PromptBudget);
        // One slow step counts a tenth: 0.9 * 2 ms + 0.1 * 22 ms are 4 ms a token.
        pace.Observe(seconds: 0.022, tokens: 1);
        Assert.Equal(50, pace.PromptBudget);
        for (var i = 0; i < 100; i++) pace.Observe(seconds: 1, tokens: 1);
        Assert.Equal(32, pace.PromptBudget);
    }

    private static Admission Create(EngineOptions options) => new("test", options, new StepPace(options));

    private static Generation Request(int tokens, string client = "", int choices = 1) => new(
        new GenerationRequest { Prompt = new int[tokens], Client = client, Sampling = new SamplingSettings { Choices = choices } }, TimeProvider.System, () => { });
}

using Microsoft.Extensions.Time.Testing;

namespace Rho.Hosting.Tests;

public sealed class ServiceHealthTests : IDisposable
{
    private readonly FakeTimeProvider _time = new();
    private readonly ServiceHealth _health;
    private readonly ServiceHealth.Worker _worker;

    public ServiceHealthTests()
    {
        _health = new ServiceHealth(_time, TimeSpan.FromSeconds(60));
        _worker = _health.Watch("model");
    }

    public void Dispose() => _health.Dispose();

    [Fact]
    public void New_IsServing()
    {
        Assert.True(_health.Report().Serving);
        Assert.Empty(_health.Report().Reasons);
    }

    [Fact]
    public void NotReady_TwoThings_NeedsBoth()
    {
        _health.NotReady("model", "loading");
        _health.NotReady("tokenizer", "loading");
        _health.Ready("model");
        Assert.False(_health.Report().Ready);
        _health.Ready("tokenizer");
        Assert.True(_health.Report().Ready);
    }

    [Fact]
    public void Degraded_StaysServing()
    {
        _health.Degraded("cache", "away");
        Assert.True(_health.Report().Serving);
        Assert.Equal(["degraded: cache: away"], _health.Report().Reasons);
        _health.Restored("cache");
        Assert.Empty(_health.Report().Reasons);
    }

    [Fact]
    public void Failed_IsFinal()
    {
        _health.Failed("the engine's loop died");
        _health.Ready("model");
        Assert.Equal((false, false), (_health.Report().Live, _health.Report().Ready));
    }

    [Fact]
    public void Work_ThatWaitsTooLong_Stalls()
    {
        _time.Advance(TimeSpan.FromHours(1));
        _worker.Added(2);
        _time.Advance(TimeSpan.FromSeconds(60));
        Assert.True(_health.Report().Progressing);
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.False(_health.Report().Progressing);
        Assert.Equal(["stalled: model: 2 items wait, and none was completed for 61 s"], _health.Report().Reasons);
    }

    [Fact]
    public void Work_CompletedOrProgressed_RestartsTheClock()
    {
        _worker.Added(3);
        _time.Advance(TimeSpan.FromSeconds(61));
        _worker.Completed();
        Assert.True(_health.Report().Progressing);
        _time.Advance(TimeSpan.FromSeconds(61));
        Assert.False(_health.Report().Progressing);
        _worker.Progressed();
        Assert.True(_health.Report().Progressing);
        Assert.Equal(2, _health.Waiting);
    }

    [Fact]
    public void Work_Dropped_IsNoProgressUntilNothingWaits()
    {
        _worker.Added(2);
        _time.Advance(TimeSpan.FromSeconds(61));
        _worker.Dropped();
        Assert.False(_health.Report().Progressing);
        _worker.Dropped();
        Assert.True(_health.Report().Progressing);
        _worker.Added();
        Assert.True(_health.Report().Progressing);
    }

    [Fact]
    public void Worker_Stalled_IsNotHiddenByAnothersProgress()
    {
        using (var other = _health.Watch("other model"))
        {
            _worker.Added();
            other.Added(2);
            _time.Advance(TimeSpan.FromSeconds(61));
            other.Completed();
            Assert.Equal(["stalled: model: 1 items wait, and none was completed for 61 s"], _health.Report().Reasons);
            Assert.Equal(2, _health.Waiting);
            _worker.Completed();
            Assert.True(_health.Report().Progressing);
            _time.Advance(TimeSpan.FromSeconds(61));
            Assert.False(_health.Report().Progressing);
        }

        Assert.True(_health.Report().Progressing);
        Assert.Equal(0, _health.Waiting);
    }

    [Fact]
    public async Task NextChange_EndsWithTheChange()
    {
        var changed = _health.NextChange();
        Assert.False(changed.IsCompleted);
        _health.NotReady("model", "loading");
        await changed.WaitAsync(ProbeHost.Limit);
        Assert.False(_health.NextChange().IsCompleted);
    }
}

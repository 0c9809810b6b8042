using Grpc.Core;
using Grpc.Net.Client;
using Rho.Hosting;
using Rho.Protocol.Training.V1;
using Rho.Training.Service;
using Wire = Rho.Protocol.Training.V1;

namespace Rho.Training.Tests;

public sealed class ServiceTests : IAsyncLifetime
{
    private readonly World _world = new();
    private TrainingHost _host = null!;
    private GrpcChannel _channel = null!;

    public async ValueTask InitializeAsync() => await StartAsync();

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        _world.Dispose();
    }

    private async Task StartAsync()
    {
        var options = new TrainingServiceOptions { Host = new RhoHostOptions { Service = "rho-trainer", GrpcPort = 0, DrainTimeout = TimeSpan.FromSeconds(2) }, Runs = _world.At("runs"), Data = _world.Root };
        _host = await TrainingHost.StartAsync(options).WaitAsync(World.Patience);
        _channel = GrpcChannel.ForAddress(_host.Address);
    }

    private async Task StopAsync()
    {
        _channel.Dispose();
        await _host.DisposeAsync().AsTask().WaitAsync(World.Patience);
    }

    private Wire.Training.TrainingClient Client => new(_channel);

    private static CallOptions Soon => new(deadline: DateTime.UtcNow + World.Patience);

    private string RunFileText(string name, long steps = 12) => _world.Run(name, "corpus", steps: steps).ToJson();

    private async Task<List<WatchRunResponse>> WatchAsync(string id, long afterStep = 0)
    {
        using var call = Client.WatchRun(new WatchRunRequest { Id = id, AfterStep = afterStep }, Soon);
        var events = new List<WatchRunResponse>();
        await foreach (var e in call.ResponseStream.ReadAllAsync()) events.Add(e);
        return events;
    }

    private async Task<Run> UntilAsync(string id, Func<Run, bool> condition)
    {
        using var limit = new CancellationTokenSource(World.Patience);
        while (true)
        {
            var run = (await Client.GetRunAsync(new GetRunRequest { Id = id }, Soon)).Run;
            if (condition(run)) return run;
            await Task.Delay(20, limit.Token);
        }
    }

    [Fact]
    public async Task StartRun_Watched_SeesEveryEventOnce()
    {
        _world.Corpus("corpus", [40]);
        var started = await Client.StartRunAsync(new StartRunRequest { RunFile = RunFileText("first") }, Soon);
        Assert.Equal("first", started.Run.Id);
        Assert.Equal(12, started.Run.Steps);
        var events = await WatchAsync("first");
        Assert.Equal(WatchRunResponse.EventOneofCase.Started, events[0].EventCase);
        Assert.Equal(Enumerable.Range(1, 12).Select(step => (long)step), events.Where(e => e.StepFinished is not null).Select(e => e.Step));
        Assert.Equal(Wire.RunState.Finished, events[^1].Ended.State);
        Assert.Equal(events[^1].Ended.Model, (await UntilAsync("first", run => run.State == Wire.RunState.Finished)).Model);
        Assert.Equal([9, 10, 11, 12], (await WatchAsync("first", 8)).Where(e => e.StepFinished is not null).Select(e => e.Step));
    }

    [Fact]
    public async Task StopRun_ThenResume_GoesOnWhereItWas()
    {
        _world.Corpus("corpus", [40]);
        await Client.StartRunAsync(new StartRunRequest { RunFile = RunFileText("long", 3000) }, Soon);
        var checkpoint = await Client.CheckpointRunAsync(new CheckpointRunRequest { Id = "long" }, Soon);
        Assert.True(Directory.Exists(checkpoint.Path));
        var stopped = (await Client.StopRunAsync(new StopRunRequest { Id = "long" }, Soon)).Run;
        Assert.Equal(Wire.RunState.Stopped, stopped.State);
        var resumed = (await Client.ResumeRunAsync(new ResumeRunRequest { Id = "long" }, Soon)).Run;
        Assert.Equal(Wire.RunState.Running, resumed.State);
        Assert.True(resumed.Step >= stopped.Step);
        Assert.Equal(StatusCode.FailedPrecondition, (await Assert.ThrowsAsync<RpcException>(async () => await Client.ResumeRunAsync(new ResumeRunRequest { Id = "long" }, Soon))).StatusCode);
        await Client.StopRunAsync(new StopRunRequest { Id = "long" }, Soon);
    }

    [Fact]
    public async Task Service_Restarted_GoesOnWithWantedRunsOnly()
    {
        _world.Corpus("corpus", [40]);
        await Client.StartRunAsync(new StartRunRequest { RunFile = RunFileText("stopped", 3000) }, Soon);
        await Client.StopRunAsync(new StopRunRequest { Id = "stopped" }, Soon);
        await Client.StartRunAsync(new StartRunRequest { RunFile = RunFileText("wanted", 3000) }, Soon);
        await Client.StartRunAsync(new StartRunRequest { RunFile = RunFileText("queued", 12) }, Soon);
        Assert.Equal(Wire.RunState.Queued, (await Client.GetRunAsync(new GetRunRequest { Id = "queued" }, Soon)).Run.State);
        var before = await UntilAsync("wanted", run => run.Step >= 3);

        await StopAsync();
        await StartAsync();

        var after = await UntilAsync("wanted", run => run.State == Wire.RunState.Running);
        Assert.True(after.Step >= before.Step);
        Assert.Equal(Wire.RunState.Stopped, (await Client.GetRunAsync(new GetRunRequest { Id = "stopped" }, Soon)).Run.State);
        Assert.Equal(["queued", "wanted", "stopped"], (await Client.ListRunsAsync(new ListRunsRequest(), Soon)).Runs.Select(run => run.Id));
        await Client.StopRunAsync(new StopRunRequest { Id = "wanted" }, Soon);
        Assert.Equal(12, (await UntilAsync("queued", run => run.State == Wire.RunState.Finished)).Step);
    }

    [Theory]
    [InlineData("{", "", StatusCode.InvalidArgument, "not valid JSON")]
    [InlineData("{ \"output\": \"a\" }", "", StatusCode.InvalidArgument, "model is missing")]
    [InlineData(null, "../up", StatusCode.InvalidArgument, "run id \"../up\"")]
    [InlineData(null, "fine", StatusCode.NotFound, "no such folder")]
    public async Task StartRun_WhatIsWrong_IsSaidAndLeavesNothing(string? file, string id, StatusCode status, string message)
    {
        var error = await Assert.ThrowsAsync<RpcException>(async () => await Client.StartRunAsync(new StartRunRequest { RunFile = file ?? RunFileText("x"), Id = id }, Soon));
        Assert.Equal(status, error.StatusCode);
        Assert.Contains(message, error.Status.Detail, StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFileSystemEntries(_world.At("runs")));
        Assert.Empty((await Client.ListRunsAsync(new ListRunsRequest(), Soon)).Runs);
    }

    [Fact]
    public async Task Calls_UnknownRun_AreNotFound()
    {
        Assert.Equal(StatusCode.NotFound, (await Assert.ThrowsAsync<RpcException>(async () => await Client.GetRunAsync(new GetRunRequest { Id = "none" }, Soon))).StatusCode);
        Assert.Equal(StatusCode.NotFound, (await Assert.ThrowsAsync<RpcException>(() => WatchAsync("none"))).StatusCode);
        Assert.Equal(StatusCode.NotFound, (await Assert.ThrowsAsync<RpcException>(async () => await Client.StopRunAsync(new StopRunRequest { Id = "none" }, Soon))).StatusCode);
    }
}

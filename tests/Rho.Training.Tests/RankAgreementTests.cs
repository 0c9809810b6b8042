namespace Rho.Training.Tests;

public sealed class RankAgreementTests
{
    [Fact]
    public void AllReady_AllPrepared_GoesOn()
    {
        var agreement = new RankAgreement(new WithAnother(2));
        Assert.True(agreement.AllReady(() => "batches", out var prepared, CancellationToken.None));
        Assert.Equal("batches", prepared);
        Assert.False(agreement.AllFailed);
    }

    [Theory]
    [InlineData(true, 2)]
    [InlineData(false, 1)]
    public void AllReady_AnyRankStops_AllDo(bool thisOne, double other)
    {
        var agreement = new RankAgreement(new WithAnother(other));
        Assert.False(agreement.AllReady(() => "batches", out _, new CancellationToken(canceled: thisOne)));
        Assert.False(agreement.AllFailed);
    }

    [Fact]
    public void AllReady_AnotherRankFails_AllFailTogether()
    {
        var agreement = new RankAgreement(new WithAnother(0));
        Assert.Throws<UnavailableException>(() => agreement.AllReady(() => "batches", out _, CancellationToken.None));
        Assert.True(agreement.AllFailed);
    }

    [Fact]
    public void AllReady_ThisRankFails_TellsTheOthersBeforeItThrows()
    {
        var ranks = new WithAnother(2);
        var agreement = new RankAgreement(ranks);
        Assert.Throws<NotFoundException>(() => agreement.AllReady<string>(() => throw new NotFoundException("a shard is gone"), out _, CancellationToken.None));
        Assert.Equal(0, Assert.Single(ranks.Said));
        Assert.True(agreement.AllFailed);
    }

    [Fact]
    public void AnyWants_OneDoes_AllHear()
    {
        Assert.True(new RankAgreement(new WithAnother(-1)).AnyWants(false));
        Assert.True(new RankAgreement(new WithAnother(0)).AnyWants(true));
        Assert.False(new RankAgreement(new WithAnother(0)).AnyWants(false));
    }

    [Fact]
    public void CheckSameWeights_NormsDiffer_NamesThem()
    {
        new RankAgreement(new WithAnother(2.5, -2.5)).CheckSameWeights(() => 2.5, 7);
        var error = Assert.Throws<CorruptDataException>(() => new RankAgreement(new WithAnother(2.25, -2.25)).CheckSameWeights(() => 2.5, 7));
        Assert.Contains("at step 7 (norms 2.25 to 2.5)", error.Message, StringComparison.Ordinal);
    }

    /// <summary>One of two ranks, the other of which says always the same.</summary>
    private sealed class WithAnother(params double[] other) : IRankGroup
    {
        public List<double> Said { get; } = [];

        public int Rank => 0;

        public int Size => 2;

        public void Lowest(Span<double> values)
        {
            for (var i = 0; i < values.Length; i++)
            {
                Said.Add(values[i]);
                values[i] = Math.Min(values[i], other[i]);
            }
        }

        public void Sum(Span<double> values) => throw new NotSupportedException();

        public void Sum(TorchSharp.torch.Tensor flat) => throw new NotSupportedException();

        public T[] Gather<T>(ReadOnlySpan<T> own)
            where T : unmanaged => throw new NotSupportedException();

        public string Broadcast(string text) => throw new NotSupportedException();

        public void Abort(string message) => throw new NotSupportedException();

        public void Dispose()
        {
        }
    }
}

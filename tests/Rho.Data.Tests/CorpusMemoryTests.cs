using System.Text.Json;
using Rho.TestSupport;

namespace Rho.Data.Tests;

[CollectionDefinition(nameof(CorpusMemoryTests), DisableParallelization = true)]
public sealed class AloneCollection;

/// <summary>Builds whose input is far larger than the memory they may take. Alone, because the heap is everybody's.</summary>
[Collection(nameof(CorpusMemoryTests))]
[Trait("Category", "Slow")]
public sealed class CorpusMemoryTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(null)]
    [InlineData(1L)]
    public async Task Build_Of200MB_StaysFarBelowThat(long? seed)
    {
        const long Size = 200 << 20;
        var lines = CorpusBuilderTests.Words(1, 100_000).Chunk(200).Select(words => JsonSerializer.Serialize(new { text = string.Join(' ', words) })).ToArray();
        var path = _folder["large.jsonl"];
        using (var writer = new StreamWriter(path))
        {
            for (var i = 0; writer.BaseStream.Length < Size; i++) await writer.WriteLineAsync(lines[i % lines.Length].Insert(9, $"{i} "));
        }

        var before = GC.GetTotalMemory(forceFullCollection: true);
        long most = 0;
        var options = new CorpusOptions { Sources = [new CorpusSource { Paths = [path] }], Directory = _folder["out"], SequenceLength = 1024, ShuffleSeed = seed, HeldOutShare = 0.01, Workers = 4, ShardTokens = 1 << 20 };
        using var timeout = new CancellationTokenSource(TimeSpan.FromMinutes(8));
        await CorpusBuilder.BuildAsync(options, CorpusBuilderTests.Tokenizer, new Peak(() => most = Math.Max(most, GC.GetTotalMemory(forceFullCollection: false) - before)), timeout.Token);
        // The tokens alone take 300 MB.
        Assert.True(most < 150 << 20, $"{most >> 20} MiB");
    }

    private sealed class Peak(Action look) : IProgress<CorpusProgress>
    {
        public void Report(CorpusProgress value) => look();
    }
}

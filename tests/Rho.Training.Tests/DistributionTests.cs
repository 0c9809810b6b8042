using System.Diagnostics;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Training.Tests;

/// <summary>Reductions over ranks, and the binding to NCCL against a library of its interface.</summary>
public sealed class DistributionTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    /// <summary>Another rank with the same gradients: sums are doubled.</summary>
    private sealed class Doubling : IRankGroup
    {
        public List<long> Lengths { get; } = [];
        public SemaphoreSlim Reduced { get; } = new(0);
        public int Rank => 0;
        public int Size => 2;

        public void Sum(Span<double> values) => throw new NotSupportedException();

        public void Sum(Tensor flat)
        {
            using var guard = no_grad();
            flat.mul_(2);
            Lengths.Add(flat.NumberOfElements);
            Reduced.Release();
        }

        public void Lowest(Span<double> values) => throw new NotSupportedException();

        public T[] Gather<T>(ReadOnlySpan<T> own)
            where T : unmanaged => throw new NotSupportedException();

        public string Broadcast(string text) => text;

        public void Abort(string message)
        {
        }

        public void Dispose() => Reduced.Dispose();
    }

    private const long Bucket = 1 << 20, Count = (2 * Bucket) + 5;

    /// <summary>What is final is reduced while the rest is not; what is not said to be final before the end is reduced then.</summary>
    [Fact]
    public async Task Reduction_Overlapped_TakesWhatIsFinal()
    {
        using var ranks = new Doubling();
        using var gradients = ones([Count]);
        var reduction = new GradientReduction(ranks, gradients, overlapped: true);
        for (var step = 0; step < 2; step++)
        {
            reduction.Begin();
            reduction.Advance((2 * Bucket) + 1);
            Assert.Empty(ranks.Lengths);      // the last bucket begins before that
            reduction.Advance(Bucket - 1);
            Assert.True(await ranks.Reduced.WaitAsync(s_patience));
            Assert.True(await ranks.Reduced.WaitAsync(s_patience));
            reduction.End();
            Assert.True(await ranks.Reduced.WaitAsync(s_patience));
            Assert.Equal([5, Bucket, Bucket], ranks.Lengths);
            Assert.Equal(Count * Math.Pow(2, step + 1), gradients.sum(ScalarType.Float64).item<double>());
            ranks.Lengths.Clear();
        }
    }

    /// <summary>Without overlap, and where a step's last micro-batch had nothing to differentiate: the same calls.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Reduction_OfNothingSaid_MakesTheSameCalls(bool overlapped)
    {
        using var ranks = new Doubling();
        using var gradients = ones([Count]);
        var reduction = new GradientReduction(ranks, gradients, overlapped);
        reduction.Begin();
        reduction.End();
        Assert.Equal([5, Bucket, Bucket], ranks.Lengths);
        Assert.Equal(Count * 2, gradients.sum(ScalarType.Float64).item<double>());
    }

    // What nccl.h declares, on memory of the host: the sum over ranks that all have the same values.
    private const string StandIn = """
        #include <stddef.h>
        #include <stdlib.h>
        #include <string.h>
        typedef struct { char internal[128]; } ncclUniqueId;
        typedef struct { int ranks; } *ncclComm_t;
        const char *ncclGetErrorString(int result) { return result == 5 ? "invalid usage" : "other"; }
        int ncclGetUniqueId(ncclUniqueId *id) { for (int i = 0; i < 128; i++) id->internal[i] = (char)(i + 1); return 0; }
        int ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank) {
          for (int i = 0; i < 128; i++) if (id.internal[i] != (char)(i + 1)) return 4;
          if (rank < 0 || rank >= ranks) return 5;
          *comm = malloc(sizeof **comm);
          (*comm)->ranks = ranks;
          return 0;
        }
        int ncclAllReduce(const void *send, void *receive, size_t count, int type, int operation, ncclComm_t comm, void *stream) {
          if (send != receive || type != 7 || operation != 0 || stream) return 4;
          for (size_t i = 0; i < count; i++) ((float *)receive)[i] *= comm->ranks;
          return 0;
        }
        int ncclCommDestroy(ncclComm_t comm) { free(comm); return 0; }
        """;

    [Fact]
    public async Task Nccl_CallsWhatItsHeaderDeclares()
    {
        var directory = Directory.CreateTempSubdirectory("rho-nccl-");
        try
        {
            var library = await CompileAsync(directory.FullName);
            using var nccl = Nccl.Find(library);
            using var values = ones([1000]).mul_(3);
            nccl!.Join(nccl.NewId(), ranks: 4, rank: 3);
            nccl.Sum(Rho.Model.FlatMemory.Address(values), values.NumberOfElements);
            Assert.Equal(12_000, values.sum().item<float>());

            using var other = Nccl.Find(library);
            var error = Assert.Throws<UnavailableException>(() => other!.Join(other.NewId(), ranks: 2, rank: 2));
            Assert.Contains("ncclCommInitRank failed: invalid usage", error.Message, StringComparison.Ordinal);
            Assert.Contains("CUDA_VISIBLE_DEVICES", error.Message, StringComparison.Ordinal);
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    [Fact]
    public void Nccl_NotInstalled_IsNotFound() => Assert.Null(Nccl.Find("libnccl-that-is-nowhere.so.2"));

    /// <summary>The library itself, where it is: an id needs no GPU.</summary>
    [Fact]
    public void Nccl_Installed_MakesIds()
    {
        using var nccl = Nccl.Find();
        Assert.SkipWhen(nccl is null, $"{Nccl.Library} is not installed");
        var made = nccl.NewId();
        ReadOnlySpan<byte> id = made;
        Assert.Contains(id.ToArray(), value => value != 0);
    }

    private static async Task<string> CompileAsync(string directory)
    {
        Assert.SkipUnless((Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(folder => File.Exists(Path.Combine(folder, "cc"))), "no C compiler (cc) is installed");
        var (source, library) = (Path.Combine(directory, "nccl.c"), Path.Combine(directory, "libnccl.so.2"));
        await File.WriteAllTextAsync(source, StandIn);
        using var compiler = Process.Start("cc", ["-shared", "-fPIC", "-o", library, source]);
        await compiler.WaitForExitAsync().WaitAsync(s_patience);
        Assert.Equal(0, compiler.ExitCode);
        return library;
    }
}

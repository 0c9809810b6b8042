using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Training;

/// <summary>
/// Adds the flat gradients up over ranks once a step, in buckets from the buffer's end to its start: the order in which the last
/// backward of the step finishes them. Overlapped, a thread reduces each bucket as soon as it is final while the backward goes on;
/// from <see cref="Begin"/> to <see cref="End"/> that thread alone talks to the other ranks. Buckets and their order are the same
/// either way and in every step, whatever a rank's micro-batches were like, so the sums are the same bits.
/// </summary>
internal sealed class GradientReduction(IRankGroup ranks, Tensor gradients, bool overlapped)
{
    private const long BucketElements = 1 << 20;
    private readonly object _gate = new();
    private long _final;        // from which element on the gradients are final
    private Task? _running;

    /// <summary>To be called before the last micro-batch of a step.</summary>
    public void Begin()
    {
        if (!overlapped) return;
        _final = long.MaxValue;
        _running = Task.Factory.StartNew(Reduce, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
    }

    /// <summary>From <paramref name="from"/> on the gradients are final.</summary>
    public void Advance(long from)
    {
        lock (_gate)
        {
            _final = from;
            Monitor.Pulse(_gate);
        }
    }

    /// <summary>All gradients are final: returns when all are reduced.</summary>
    public void End()
    {
        Advance(0);
        if (_running is null) Reduce();
        else _running.GetAwaiter().GetResult();
        _running = null;
    }

    private void Reduce()
    {
        if (ranks.Size == 1) return;
        // A GPU's are reduced at once: its kernels are queued, and none is known to be done before the end.
        var bucket = gradients.device_type == DeviceType.CPU ? BucketElements : gradients.NumberOfElements;
        for (var end = gradients.NumberOfElements; end > 0;)
        {
            var start = (end - 1) / bucket * bucket;
            lock (_gate)
            {
                while (_final > start) Monitor.Wait(_gate);
            }

            using var part = gradients.narrow(0, start, end - start);
            ranks.Sum(part);
            end = start;
        }
    }
}

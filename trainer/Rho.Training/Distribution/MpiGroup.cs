using System.Runtime.InteropServices;
using System.Text;
using Rho.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Training;

/// <summary>The processes of one mpirun, on one machine or several.</summary>
internal sealed unsafe class MpiGroup : IRankGroup
{
    private const int ChunkElements = 1 << 28;
    private readonly Mpi _mpi;
    private Nccl? _nccl;
    private bool _triedNccl;

    private MpiGroup(Mpi mpi)
    {
        _mpi = mpi;
        (Rank, Size) = (mpi.Rank(), mpi.Size());
    }

    public int Rank { get; }

    public int Size { get; }

    public static MpiGroup Join()
    {
        var mpi = new Mpi();
        mpi.Initialize();
        return new MpiGroup(mpi);
    }

    public void Sum(Span<double> values)
    {
        fixed (double* pointer = values) _mpi.AllReduce(pointer, values.Length, _mpi.Double, _mpi.Add);
    }

    public void Sum(Tensor flat)
    {
        if (flat.device_type == DeviceType.CPU)
        {
            SumOnHost(flat);
            return;
        }

        if (!_triedNccl) JoinNccl(flat);
        if (_nccl is not null)
        {
            _nccl.Sum(FlatMemory.Address(flat), flat.NumberOfElements);
            return;
        }

        using var guard = no_grad();
        using var host = flat.cpu();
        SumOnHost(host);
        flat.copy_(host);
    }

    public void Lowest(Span<double> values)
    {
        fixed (double* pointer = values) _mpi.AllReduce(pointer, values.Length, _mpi.Double, _mpi.Least);
    }

    public T[] Gather<T>(ReadOnlySpan<T> own)
        where T : unmanaged
    {
        // First the lengths, as a sum of vectors with one place each.
        Span<double> lengths = stackalloc double[Size];
        lengths[Rank] = own.Length * sizeof(T);
        Sum(lengths);
        var counts = new int[Size];
        var starts = new int[Size];
        for (var i = 0; i < Size; i++)
        {
            counts[i] = (int)lengths[i];
            starts[i] = i == 0 ? 0 : starts[i - 1] + counts[i - 1];
        }

        var all = new T[(starts[^1] + counts[^1]) / sizeof(T)];
        fixed (T* send = own, receive = all)
        fixed (int* c = counts, s = starts)
            _mpi.AllGather(send, counts[Rank], receive, c, s);
        return all;
    }

    public string Broadcast(string text)
    {
        var bytes = Rank == 0 ? Encoding.UTF8.GetBytes(text) : [];
        Span<double> length = [bytes.Length];
        Sum(length);
        if (Rank != 0) bytes = new byte[(int)length[0]];
        fixed (byte* pointer = bytes) _mpi.Broadcast(pointer, bytes.Length);
        return Encoding.UTF8.GetString(bytes);
    }

    private void SumOnHost(Tensor flat)
    {
        var pointer = (float*)FlatMemory.Address(flat);
        for (long start = 0; start < flat.NumberOfElements; start += ChunkElements)
            _mpi.AllReduce(pointer + start, (int)Math.Min(ChunkElements, flat.NumberOfElements - start), _mpi.Float, _mpi.Add);
    }

    /// <summary>All ranks reduce over NCCL, or none does.</summary>
    private void JoinNccl(Tensor flat)
    {
        _triedNccl = true;
        var nccl = flat.device_index == 0 ? Nccl.Find() : null;
        Span<double> found = [nccl is null ? 0 : 1];
        Lowest(found);
        if (found[0] == 0)
        {
            if (Rank == 0)
                Console.Error.WriteLine($"gradients pass through host memory: NCCL needs {Nccl.Library} on every machine, and each process the first GPU that it sees (CUDA_VISIBLE_DEVICES=$OMPI_COMM_WORLD_LOCAL_RANK)");
            return;
        }

        var id = Rank == 0 ? nccl!.NewId() : default;
        _mpi.Broadcast(&id, sizeof(Nccl.UniqueId));
        nccl!.Join(id, Size, Rank);
        _nccl = nccl;
    }

    public void Abort(string message)
    {
        // The process ends in this call: nobody else gets to say why.
        Console.Error.WriteLine($"process {Rank} of {Size}: {message}");
        _mpi.Abort();
    }

    public void Dispose()
    {
        _nccl?.Dispose();
        _mpi.Finish();
    }
}

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Rho.Training;

/// <summary>
/// The calls of NVIDIA's NCCL that training needs, looked up when the process is one of several on GPUs. A communicator is bound to
/// the first GPU that its process sees.
/// </summary>
internal sealed unsafe class Nccl : IDisposable
{
    public const string Library = "libnccl.so.2";
    private const int Float32 = 7;       // ncclFloat32
    private const int Add = 0;           // ncclSum
    private readonly delegate* unmanaged<int, byte*> _errorString;
    private readonly delegate* unmanaged<UniqueId*, int> _getUniqueId;
    private readonly delegate* unmanaged<nint*, int, UniqueId, int, int> _commInitRank;
    private readonly delegate* unmanaged<void*, void*, nuint, int, int, nint, nint, int> _allReduce;
    private readonly delegate* unmanaged<nint, int> _commDestroy;
    private nint _communicator;

    private Nccl(nint library)
    {
        _errorString = (delegate* unmanaged<int, byte*>)NativeLibrary.GetExport(library, "ncclGetErrorString");
        _getUniqueId = (delegate* unmanaged<UniqueId*, int>)NativeLibrary.GetExport(library, "ncclGetUniqueId");
        _commInitRank = (delegate* unmanaged<nint*, int, UniqueId, int, int>)NativeLibrary.GetExport(library, "ncclCommInitRank");
        _allReduce = (delegate* unmanaged<void*, void*, nuint, int, int, nint, nint, int>)NativeLibrary.GetExport(library, "ncclAllReduce");
        _commDestroy = (delegate* unmanaged<nint, int>)NativeLibrary.GetExport(library, "ncclCommDestroy");
    }

    /// <summary>What the ranks of one communicator find each other by: made by one, given to all.</summary>
    [InlineArray(128)]
    public struct UniqueId
    {
        private byte _first;
    }

    /// <summary>Null where the library is not installed.</summary>
    public static Nccl? Find(string library = Library) => NativeLibrary.TryLoad(library, out var handle) ? new Nccl(handle) : null;

    public UniqueId NewId()
    {
        UniqueId id;
        Check(_getUniqueId(&id), "ncclGetUniqueId");
        return id;
    }

    /// <summary>Returns when all ranks have called it.</summary>
    public void Join(UniqueId id, int ranks, int rank)
    {
        nint communicator;
        Check(_commInitRank(&communicator, ranks, id, rank), "ncclCommInitRank");
        _communicator = communicator;
    }

    /// <summary>Adds values in the GPU's memory up over ranks, in place, on the default stream: after what was queued there, before what will be.</summary>
    public void Sum(nint values, long count) => Check(_allReduce((void*)values, (void*)values, (nuint)count, Float32, Add, _communicator, 0), "ncclAllReduce");

    public void Dispose()
    {
        if (_communicator != 0) _ = _commDestroy(_communicator);
        _communicator = 0;
    }

    private void Check(int result, string call)
    {
        if (result == 0) return;
        throw new UnavailableException(
            $"{call} failed: {Marshal.PtrToStringUTF8((nint)_errorString(result))}. Each process needs a GPU of its own: start it with CUDA_VISIBLE_DEVICES=$OMPI_COMM_WORLD_LOCAL_RANK; NCCL_DEBUG=INFO says more");
    }
}

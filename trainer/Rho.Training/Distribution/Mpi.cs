using System.Runtime.InteropServices;

namespace Rho.Training;

/// <summary>The calls of Open MPI's C library that training needs. Its handles are addresses of global variables, looked up by name.</summary>
internal sealed unsafe partial class Mpi
{
    private const string Library = "libmpi.so.40";

    /// <summary>MPI_IN_PLACE of Open MPI.</summary>
    private static readonly void* s_inPlace = (void*)1;

    private readonly nint _library;
    private readonly nint _world;

    public Mpi()
    {
        if (!NativeLibrary.TryLoad(Library, out _library) || !NativeLibrary.TryGetExport(_library, "ompi_mpi_comm_world", out _world))
            throw new RhoException($"training over several processes needs Open MPI ({Library}; Debian: openmpi-bin), which was not found");
        Byte = Export("ompi_mpi_byte");
        Float = Export("ompi_mpi_float");
        Double = Export("ompi_mpi_double");
        Add = Export("ompi_mpi_op_sum");
        Least = Export("ompi_mpi_op_min");
    }

    public nint Byte { get; }

    public nint Float { get; }

    public nint Double { get; }

    public nint Add { get; }

    public nint Least { get; }

    /// <summary>Joins the processes that mpirun started. Calls may come from any thread, one at a time.</summary>
    public void Initialize()
    {
        const int serialized = 2;
        Check(MPI_Initialized(out var before), "MPI_Initialized");
        if (before != 0) throw new RhoException("a process trains one run over MPI: start mpirun again for another");
        Check(MPI_Init_thread(null, null, serialized, out var provided), "MPI_Init_thread");
        if (provided < serialized) throw new RhoException("this Open MPI was built without support for threads, which training needs");
    }

    public void Finish() => Check(MPI_Finalize(), "MPI_Finalize");

    public int Rank()
    {
        Check(MPI_Comm_rank(_world, out var rank), "MPI_Comm_rank");
        return rank;
    }

    public int Size()
    {
        Check(MPI_Comm_size(_world, out var size), "MPI_Comm_size");
        return size;
    }

    public void AllReduce(void* values, int count, nint type, nint operation) =>
        Check(MPI_Allreduce(s_inPlace, values, count, type, operation, _world), "MPI_Allreduce");

    public void AllGather(void* own, int bytes, void* all, int* counts, int* starts) =>
        Check(MPI_Allgatherv(own, bytes, Byte, all, counts, starts, Byte, _world), "MPI_Allgatherv");

    public void Broadcast(void* bytes, int count) => Check(MPI_Bcast(bytes, count, Byte, 0, _world), "MPI_Bcast");

    public void Abort() => _ = MPI_Abort(_world, 1);

    private nint Export(string name) => NativeLibrary.GetExport(_library, name);

    private static void Check(int result, string call)
    {
        if (result != 0) throw new UnavailableException($"{call} failed with code {result}: another process of the run is gone");
    }

    [LibraryImport(Library)]
    private static partial int MPI_Initialized(out int flag);

    [LibraryImport(Library)]
    private static partial int MPI_Init_thread(int* argc, byte*** argv, int required, out int provided);

    [LibraryImport(Library)]
    private static partial int MPI_Finalize();

    [LibraryImport(Library)]
    private static partial int MPI_Comm_rank(nint communicator, out int rank);

    [LibraryImport(Library)]
    private static partial int MPI_Comm_size(nint communicator, out int size);

    [LibraryImport(Library)]
    private static partial int MPI_Allreduce(void* send, void* receive, int count, nint type, nint operation, nint communicator);

    [LibraryImport(Library)]
    private static partial int MPI_Allgatherv(void* send, int count, nint sendType, void* receive, int* counts, int* starts, nint receiveType, nint communicator);

    [LibraryImport(Library)]
    private static partial int MPI_Bcast(void* buffer, int count, nint type, int root, nint communicator);

    [LibraryImport(Library)]
    private static partial int MPI_Abort(nint communicator, int code);
}

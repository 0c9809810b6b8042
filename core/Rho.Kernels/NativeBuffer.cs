using System.Runtime.InteropServices;

namespace Rho.Kernels;

/// <summary>Zeroed native memory, aligned to cache lines. The system provides its pages as they are first touched.</summary>
public sealed unsafe class NativeBuffer : SafeBuffer
{
    private readonly void* _allocation;

    public NativeBuffer(long bytes) : base(ownsHandle: true)
    {
        const nuint alignment = 64;
        _allocation = NativeMemory.AllocZeroed((nuint)bytes + alignment);
        SetHandle((nint)(((nuint)_allocation + alignment - 1) & ~(alignment - 1)));
        Initialize((ulong)bytes);
    }

    public byte* Bytes => (byte*)handle;

    public float* Floats => (float*)handle;

    protected override bool ReleaseHandle()
    {
        NativeMemory.Free(_allocation);
        return true;
    }
}

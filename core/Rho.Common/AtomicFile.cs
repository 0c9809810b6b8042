using Microsoft.Win32.SafeHandles;

namespace Rho;

/// <summary>Files that appear whole or not at all: written beside their place, flushed to disk, then renamed over it.</summary>
public static class AtomicFile
{
    /// <summary>Writes a file through a stream. If <paramref name="write"/> throws, the old file stays as it was.</summary>
    public static void Write(string path, Action<FileStream> write)
    {
        var temporary = TemporaryPath(path);
        try
        {
            using (var stream = new FileStream(temporary, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None, 1 << 16))
            {
                write(stream);
                stream.Flush(flushToDisk: true);
            }

            File.Move(temporary, path, overwrite: true);
        }
        catch
        {
            File.Delete(temporary);
            throw;
        }
    }

    public static void WriteText(string path, string text) => Write(path, stream => stream.Write(System.Text.Encoding.UTF8.GetBytes(text)));

    /// <summary>A name beside <paramref name="path"/> that no reader takes for a finished file.</summary>
    public static string TemporaryPath(string path) => $"{path}.{Environment.ProcessId}-{Guid.NewGuid():N}.tmp";

    /// <summary>Flushes a folder's entries to disk, so that renames in it survive a power cut.</summary>
    public static void FlushDirectory(string directory)
    {
        // .NET opens no folders; a failed open means a file system without this notion, where there is nothing to do.
        var descriptor = Posix.Open(directory, 0);
        if (descriptor < 0) return;
        using var handle = new SafeFileHandle(descriptor, ownsHandle: true);
        _ = Posix.Sync(descriptor);
    }
}

internal static partial class Posix
{
    [System.Runtime.InteropServices.LibraryImport("libc", EntryPoint = "open", StringMarshalling = System.Runtime.InteropServices.StringMarshalling.Utf8)]
    internal static partial int Open(string path, int flags);

    [System.Runtime.InteropServices.LibraryImport("libc", EntryPoint = "fsync")]
    internal static partial int Sync(int descriptor);
}

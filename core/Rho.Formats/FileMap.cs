using Microsoft.Win32.SafeHandles;

namespace Rho.Formats;

/// <summary>What readers of mapped files have in common: errors that name the file.</summary>
internal static class FileMap
{
    /// <exception cref="NotFoundException">There is no such file.</exception>
    /// <exception cref="RhoException">The file cannot be read.</exception>
    public static SafeFileHandle OpenHandle(string path)
    {
        try
        {
            return File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new NotFoundException($"{path}: no such file");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{path}: cannot be read: {e.Message}", e);
        }
    }

    /// <exception cref="RhoException">The file cannot be read or has become shorter.</exception>
    public static void ReadExactly(string path, SafeFileHandle file, Span<byte> target, long start)
    {
        while (target.Length > 0)
        {
            int read;
            try
            {
                read = RandomAccess.Read(file, target, start);
            }
            catch (IOException e)
            {
                throw new RhoException($"{path}: cannot be read: {e.Message}", e);
            }

            if (read == 0) throw new RhoException($"{path}: the file became shorter while it was read");
            target = target[read..];
            start += read;
        }
    }
}

namespace Rho;

/// <summary>What is said when a file cannot be written.</summary>
public static class DiskError
{
    private const int NoSpaceLeft = 28, QuotaExceeded = 122;

    /// <summary>One line for what went wrong when writing <paramref name="path"/>.</summary>
    /// <param name="needed">Bytes that were to be taken from the disk at once: a failed preallocation carries no error number.</param>
    public static RhoException Translate(string path, Exception e, long needed = 0)
    {
        var full = e is IOException && (e.HResult is NoSpaceLeft or QuotaExceeded || (needed > 0 && FreeSpace(path) < needed)); // HResult is the errno
        return new RhoException(
            full ? $"{path}: the disk is full"
            : e is DirectoryNotFoundException ? $"{path}: cannot be written: its folder does not exist"
            : $"{path}: cannot be written: {e.Message}",
            e);
    }

    /// <summary>Bytes that are free where <paramref name="path"/> is to be.</summary>
    public static long FreeSpace(string path)
    {
        var folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        if (!Directory.Exists(folder)) return long.MaxValue;
        var drive = new DriveInfo(folder);
        return drive.TotalSize == 0 ? long.MaxValue : drive.AvailableFreeSpace; // some file systems do not say
    }
}

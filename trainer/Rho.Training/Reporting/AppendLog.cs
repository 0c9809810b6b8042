namespace Rho.Training;

/// <summary>
/// Appends to a file that a run can do without for a while: what the disk does not take is kept in memory and written with what comes
/// next. Not thread-safe.
/// </summary>
internal sealed class AppendLog : IDisposable
{
    /// <summary>Past this, what comes is lost: days of steps.</summary>
    private const int MostPending = 64 << 20;

    private readonly Stream _file;
    private readonly MemoryStream _pending = new();
    private long _end;

    /// <param name="file">Unbuffered and seekable; becomes this object's own.</param>
    internal AppendLog(Stream file)
    {
        _file = file;
        _end = file.Seek(0, SeekOrigin.End);
    }

    /// <summary>Opens a file, or makes it, to go on at its end.</summary>
    public static AppendLog Open(string path) => new(new FileStream(path, FileMode.OpenOrCreate, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0));

    /// <summary>Why something is still in memory; null where all is in the file.</summary>
    public string? Problem { get; private set; }

    public void Write(ReadOnlySpan<byte> bytes)
    {
        if (_pending.Length < MostPending) _pending.Write(bytes);
        try
        {
            // Over what a failed write may have left of the same bytes.
            _file.Position = _end;
            _file.Write(_pending.GetBuffer(), 0, (int)_pending.Length);
            _file.Flush();
            _end += _pending.Length;
            _pending.SetLength(0);
            Problem = null;
        }
        catch (IOException e)
        {
            Problem = e.Message;
        }
    }

    public void Dispose() => _file.Dispose();
}

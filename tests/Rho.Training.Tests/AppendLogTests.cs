namespace Rho.Training.Tests;

public class AppendLogTests
{
    /// <summary>A disk with little room: what does not fit is written in part, and fails.</summary>
    private sealed class Disk : MemoryStream
    {
        public long Room { get; set; } = long.MaxValue;

        public override void Write(byte[] buffer, int offset, int count)
        {
            var fits = (int)Math.Clamp(Room - Position, 0, count);
            base.Write(buffer, offset, fits);
            if (fits < count) throw new IOException("no space left");
        }
    }

    [Fact]
    public void Write_DiskFullForAWhile_LosesNothing()
    {
        using var disk = new Disk();
        using var log = new AppendLog(disk);
        log.Write("one\n"u8);
        disk.Room = 6;
        log.Write("two\n"u8);
        Assert.Equal("no space left", log.Problem);
        log.Write("three\n"u8);
        Assert.NotNull(log.Problem);
        disk.Room = long.MaxValue;
        log.Write("four\n"u8);
        Assert.Null(log.Problem);
        Assert.Equal("one\ntwo\nthree\nfour\n", System.Text.Encoding.UTF8.GetString(disk.ToArray()));
    }

    [Fact]
    public void Open_FileThatIsThere_GoesOnAtItsEnd()
    {
        var path = Path.GetTempFileName();
        try
        {
            File.WriteAllText(path, "old\n");
            using (var log = AppendLog.Open(path)) log.Write("new\n"u8);
            Assert.Equal("old\nnew\n", File.ReadAllText(path));
        }
        finally
        {
            File.Delete(path);
        }
    }
}

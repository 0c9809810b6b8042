using System.IO.Compression;
using System.Text;
using System.Text.Json;
using FsCheck;
using FsCheck.Fluent;
using ZstdSharp;
using ZstdSharp.Unsafe;

namespace Rho.Data.Tests;

public sealed class RecordReaderTests
{
    private static readonly Gen<string> Value = Gen.ArrayOf(Gen.Elements("a", "ä", "😀", "\"", ",", "\n", "\r", "\\", "{", "}", "[", "]", " ", "\t")).Select(string.Concat);

    private static readonly byte[] s_numbers = Encoding.UTF8.GetBytes(string.Join('\n', Enumerable.Range(0, 100_000)));

    [Fact]
    public void Csv_AnyFields_ComeBackAsWritten()
        => Prop.ForAll(Gen.ListOf(Gen.Zip(Value, Value)).ToArbitrary(), rows =>
        {
            static string Quoted(string field) => $"\"{field.Replace("\"", "\"\"", StringComparison.Ordinal)}\"";
            var text = "x,text,y\n" + string.Concat(rows.Select((row, i) => $"{i},{Quoted(row.Item1)},{Quoted(row.Item2)}{(i % 2 == 0 ? "\r\n" : "\n")}"));
            var source = new CorpusSource { Paths = [], Template = "{x}{text}|{y}" };
            Assert.Equal(rows.Select((row, i) => $"{i}{row.Item1}|{row.Item2}"), Texts(text, SourceFormat.Csv, source));
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void Json_AnyValues_ComeBackAsWritten()
        => Prop.ForAll(Gen.ListOf(Gen.Zip(Value, Value)).ToArbitrary(), rows =>
        {
            var objects = rows.Select(row => new { other = new { deep = new[] { row.Item2 } }, text = row.Item1 }).ToArray();
            var expected = rows.Select(row => row.Item1).ToArray();
            var source = new CorpusSource { Paths = [] };
            Assert.Equal(expected, Texts(JsonSerializer.Serialize(objects), SourceFormat.Json, source));
            Assert.Equal(expected, Texts(JsonSerializer.Serialize(objects, new JsonSerializerOptions { WriteIndented = true }), SourceFormat.Json, source));
            Assert.Equal(expected, Texts(string.Concat(objects.Select(o => JsonSerializer.Serialize(o))), SourceFormat.Json, source));
            Assert.Equal(expected, Texts(string.Join("\n", objects.Select(o => JsonSerializer.Serialize(o))), SourceFormat.JsonLines, source));
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void Text_AnySeparator_SplitsAsStringSplitDoes()
        => Prop.ForAll(Gen.Zip(Gen.ListOf(Value), Gen.Elements("\n\n", "<|endoftext|>", "aa", "\n")).ToArbitrary(), pair =>
        {
            var text = string.Join(pair.Item2, pair.Item1);
            var expected = text.Split(pair.Item2);
            if (expected[^1].Length == 0) expected = expected[..^1];
            Assert.Equal(expected, Texts(text, SourceFormat.Text, new CorpusSource { Paths = [], Separator = pair.Item2 }));
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void Lines_CountFromOneInEveryFormat()
    {
        static long[] Lines(string text, SourceFormat format)
        {
            using var reader = RecordReader.Open("file", format, "##", new Dripping(Encoding.UTF8.GetBytes(text)));
            var lines = new List<long>();
            while (reader.Read()) lines.Add(reader.Line);
            return [.. lines];
        }

        Assert.Equal([1L, 4, 5], Lines("{}\n\n\n{}\r\n{}", SourceFormat.JsonLines));
        Assert.Equal([2L, 4, 4], Lines("[\n{\"a\":\n1},\n {},{}]", SourceFormat.Json));
        Assert.Equal([2L, 5], Lines("a,b\n1,\"x\ny\n\"\n2,z", SourceFormat.Csv));
        Assert.Equal([1L, 3, 3], Lines("a\nb\n##c##d\n", SourceFormat.Text));
    }

    [Fact]
    public void Read_LineBeyondTheLimit_IsABadRecordAndTheNextIsRead()
    {
        using var reader = RecordReader.Open("file", SourceFormat.JsonLines, separator: null, new Repeating("{\"text\":\"first\"}\n"u8.ToArray(), (byte)'x', 200L << 20, "\n{\"text\":\"last\"}"u8.ToArray()));
        Assert.True(reader.Read());
        Assert.Null(reader.Fault);
        Assert.True(reader.Read());
        Assert.Equal("the line is longer than 64 MiB", reader.Fault);
        Assert.True(reader.Read());
        Assert.Equal("{\"text\":\"last\"}", Encoding.UTF8.GetString(reader.Record));
        Assert.Equal(3, reader.Line);
        Assert.False(reader.Read());
    }

    [Fact]
    public void Zstd_SeveralFramesEmptyOnesAndOnesToSkip_ReadAsOne()
    {
        byte[] skipped = [0x5A, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, .. "abcd"u8];
        var random = RandomBytes(300_000);
        Assert.Equal([.. s_numbers, .. random], Unzstd([.. skipped, .. Zstd(s_numbers), .. Zstd([]), .. skipped, .. Zstd(random)]));
        Assert.Empty(Unzstd(skipped));
    }

    [Fact]
    public void Zstd_BrokenAnywhere_FailsAndSaysWhere()
    {
        var all = Zstd(RandomBytes(300_000));
        static string Fault(byte[] bytes) => Assert.Throws<InvalidDataException>(() => Unzstd(bytes)).Message;
        foreach (var length in new[] { 5, 1000, all.Length - 1 }) Assert.Equal($"the zstd data end early, at byte {length:N0}: the file is truncated", Fault(all[..length]));
        Assert.StartsWith($"the zstd data are damaged, near byte {all.Length:N0}: Unknown frame descriptor", Fault([.. all, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), StringComparison.Ordinal);
        var damaged = all.ToArray();
        damaged[200_000] ^= 1;
        Assert.Contains("damaged", Fault(damaged), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(27, true)]
    [InlineData(28, false)]
    public void Zstd_WindowOverTheLimit_IsRefused(int windowLog, bool accepted)
    {
        var bytes = Zstd(s_numbers, windowLog);
        if (accepted) Assert.Equal(s_numbers, Unzstd(bytes));
        else Assert.Contains("more than 128 MiB", Assert.Throws<InvalidDataException>(() => Unzstd(bytes)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(1024)]
    [InlineData(1_000_000)]
    public void Gzip_ZerosBehindTheData_ArePadding(int count)
    {
        var zeros = new byte[count];
        Assert.Equal(s_numbers, Gunzip([.. Gzip(s_numbers), .. zeros]));
        Assert.Equal([.. s_numbers, .. zeros], Gunzip([.. Gzip(s_numbers), .. Gzip(zeros), .. zeros]));
        byte[] nothing = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, .. new byte[8]];   // zeros of its own at its end
        Assert.Empty(Gunzip([.. nothing, .. zeros]));
    }

    [Fact]
    public void Gzip_BrokenOrFollowedByOtherThings_FailsAndSaysWhere()
    {
        var all = Gzip(RandomBytes(300_000));
        static string Fault(byte[] bytes) => Assert.Throws<InvalidDataException>(() => Gunzip(bytes)).Message;
        foreach (var length in new[] { 5, 1000, all.Length - 1 }) Assert.Contains("end early", Fault(all[..length]), StringComparison.Ordinal);
        Assert.Contains("end early", Fault([.. all[..1000], .. new byte[5000]]), StringComparison.Ordinal);
        foreach (var more in new byte[][] { [1, 2, 3], [.. "text"u8, .. new byte[100]] }) Assert.StartsWith("something that is not gzip follows", Fault([.. all, .. more]), StringComparison.Ordinal);
    }

    private static byte[] RandomBytes(int count)
    {
        var bytes = new byte[count];
        new Random(5).NextBytes(bytes);
        return bytes;
    }

    private static byte[] Zstd(byte[] content, int windowLog = 0)
    {
        using var compressor = new Compressor();
        compressor.SetParameter(ZSTD_cParameter.ZSTD_c_windowLog, windowLog);
        compressor.SetParameter(ZSTD_cParameter.ZSTD_c_checksumFlag, 1);
        using var output = new MemoryStream();
        // As a stream: a frame of known size has no window of its own.
        using (var stream = new CompressionStream(output, compressor)) stream.Write(content);
        return output.ToArray();
    }

    private static byte[] Unzstd(byte[] bytes) => ReadAll(new ZstdReadStream(new Dripping(bytes, largest: 5000)));

    private static byte[] Gzip(byte[] content)
    {
        using var output = new MemoryStream();
        using (var gzip = new GZipStream(output, CompressionLevel.Fastest)) gzip.Write(content);
        return output.ToArray();
    }

    private static byte[] Gunzip(byte[] bytes) => ReadAll(new GzipReadStream(new MemoryStream(bytes)));

    private static byte[] ReadAll(Stream stream)
    {
        using (stream)
        {
            using var output = new MemoryStream();
            stream.CopyTo(output, 777);
            return output.ToArray();
        }
    }

    private static string[] Texts(string content, SourceFormat format, CorpusSource source)
    {
        using var reader = RecordReader.Open("file", format, source.Separator, new Dripping(Encoding.UTF8.GetBytes(content)));
        return ReadAll(reader, new InputFile("file", format, 0, 0, true), source);
    }

    private static string[] ReadAll(RecordReader reader, InputFile file, CorpusSource source)
    {
        RecordText? maker = null;
        var texts = new List<string>();
        while (reader.Read())
        {
            maker ??= RecordText.For(file, source, reader.Columns);
            Assert.Null(reader.Fault ?? maker.Make(reader.Record));
            texts.Add(Encoding.UTF8.GetString(maker.Text));
        }

        return [.. texts];
    }

    /// <summary>Gives its bytes in small and uneven parts.</summary>
    private sealed class Dripping(byte[] bytes, int largest = 5) : ReadOnlyStream
    {
        private readonly Random _random = new(bytes.Length);
        private int _position;

        public override int Read(Span<byte> buffer)
        {
            var count = Math.Min(Math.Min(buffer.Length, bytes.Length - _position), _random.Next(1, largest + 1));
            bytes.AsSpan(_position, count).CopyTo(buffer);
            _position += count;
            return count;
        }
    }

    private sealed class Repeating(byte[] first, byte middle, long count, byte[] last) : ReadOnlyStream
    {
        private long _position;

        public override int Read(Span<byte> buffer)
        {
            var i = 0;
            for (; i < buffer.Length && _position < first.Length + count + last.Length; i++, _position++)
                buffer[i] = _position < first.Length ? first[_position] : _position < first.Length + count ? middle : last[_position - first.Length - count];
            return i;
        }
    }
}

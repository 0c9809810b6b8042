using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using FsCheck;
using FsCheck.Fluent;

namespace Rho.Data.Tests;

public sealed class RecordReaderTests
{
    private static readonly Gen<string> Value = Gen.ArrayOf(Gen.Elements("a", "ä", "😀", "\"", ",", "\n", "\r", "\\", "{", "}", "[", "]", " ", "\t")).Select(string.Concat);

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
    public unsafe void Zstd_SeveralFramesAndEmptyOnes_ReadAsOne_TruncatedOnesFail()
    {
        var library = NativeLibrary.Load("libzstd.so.1");
        var compress = (delegate* unmanaged<byte*, nuint, byte*, nuint, int, nuint>)NativeLibrary.GetExport(library, "ZSTD_compress");
        byte[] Compress(byte[] content)
        {
            var output = new byte[content.Length + 1024];
            fixed (byte* to = output, from = content) return output[..(int)compress(to, (nuint)output.Length, from, (nuint)content.Length, 3)];
        }

        var random = new byte[300_000];
        new Random(5).NextBytes(random);
        byte[] first = [.. Encoding.UTF8.GetBytes(string.Join('\n', Enumerable.Range(0, 100_000)))], all = [.. Compress(first), .. Compress([]), .. Compress(random)];
        static byte[] Decompress(byte[] bytes)
        {
            using var stream = new ZstdReadStream(new Dripping(bytes, largest: 5000));
            using var output = new MemoryStream();
            stream.CopyTo(output, 777);
            return output.ToArray();
        }

        Assert.Equal([.. first, .. random], Decompress(all));
        Assert.Contains("end early", Assert.Throws<InvalidDataException>(() => Decompress(all[..^10])).Message, StringComparison.Ordinal);
        Assert.Contains("damaged", Assert.Throws<InvalidDataException>(() => Decompress([.. all, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])).Message, StringComparison.Ordinal);
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

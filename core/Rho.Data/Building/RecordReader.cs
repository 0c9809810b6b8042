using System.Text;

namespace Rho.Data;

/// <summary>
/// Cuts the bytes of a file into records (documents, lines, JSON values, rows) without parsing them, with memory for one record.
/// <see cref="Read"/> steps to the next one; what it found stands in the properties until the next step.
/// </summary>
internal abstract class RecordReader(string path, Stream content) : IDisposable
{
    /// <summary>Longer text is cut at the end of a line: memory stays bounded, whatever a file holds.</summary>
    public const int MaxDocumentBytes = 4 << 20;

    /// <summary>Longer lines, JSON values and rows are bad records.</summary>
    public const int MaxRecordBytes = 64 << 20;

    private readonly int _maxBuffer = MaxRecordBytes + (1 << 20);
    private byte[] _buffer = new byte[1 << 18];
    private int _start, _end;
    private int _recordStart, _recordLength;
    private bool _ended, _begun;

    /// <summary>The record's bytes.</summary>
    public ReadOnlySpan<byte> Record => _buffer.AsSpan(_recordStart, _recordLength);

    /// <summary>Line in which the record begins, from 1.</summary>
    public long Line { get; private set; } = 1;

    /// <summary>Why the record cannot be used; null where it can.</summary>
    public string? Fault { get; private set; }

    /// <summary>The record is the beginning of a document that was cut; the next one continues it.</summary>
    public bool Cut { get; private set; }

    /// <summary>Column names of a table; null for other files.</summary>
    public string[]? Columns { get; protected set; }

    protected string Path => path;

    /// <summary>Bytes that are there and belong to no record yet.</summary>
    protected ReadOnlySpan<byte> Rest => _buffer.AsSpan(_start, _end - _start);

    private long _nextLine = 1;

    public static RecordReader Open(string path, SourceFormat format, string? separator, Stream content) => format switch
    {
        SourceFormat.Text => new TextReader(path, content, separator),
        SourceFormat.JsonLines => new LineReader(path, content),
        SourceFormat.Json => new JsonReader(path, content),
        SourceFormat.Csv => new TableReader(path, content, (byte)','),
        SourceFormat.Tsv => new TableReader(path, content, (byte)'\t'),
        _ => throw new ArgumentOutOfRangeException(nameof(format), format, message: null),
    };

    /// <summary>Steps to the next record; false at the end of the file.</summary>
    /// <exception cref="RhoException">The file cannot be read on: damaged compression, an input error, UTF-16.</exception>
    public abstract bool Read();

    public void Dispose() => content.Dispose();

    /// <summary>Where text is to be cut that may have at most <paramref name="limit"/> bytes: after its last line break, or between characters.</summary>
    public static int CutPoint(ReadOnlySpan<byte> text, int limit)
    {
        if (text.Length <= limit) return text.Length;
        var line = text[..limit].LastIndexOf((byte)'\n');
        if (line >= limit / 2) return line + 1;
        var cut = limit;
        while (cut > limit - 4 && (text[cut] & 0xC0) == 0x80) cut--;
        return cut;
    }

    /// <summary>Reads more behind <see cref="Rest"/>; false at the end of the file.</summary>
    protected bool Fill()
    {
        if (_ended) return false;
        if (_start > 0)
        {
            _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
            (_start, _end) = (0, _end - _start);
        }

        if (_end == _buffer.Length) Array.Resize(ref _buffer, (int)Math.Min(2L * _buffer.Length, _maxBuffer));
        int read;
        try
        {
            read = content.Read(_buffer, _end, _buffer.Length - _end);
            // The first bytes may tell a byte order mark: have them all.
            while (!_begun && read > 0 && _end + read < 3 && content.Read(_buffer, _end + read, 3 - read) is var more and > 0) read += more;
        }
        catch (Exception e) when (e is IOException or InvalidDataException)
        {
            throw new RhoException($"{path}: {e.Message} (after line {_nextLine + Rest.Count((byte)'\n')})", e);
        }

        _end += read;
        _ended = read == 0;
        if (_begun) return !_ended;
        _begun = true;
        if (Rest.StartsWith<byte>([0xEF, 0xBB, 0xBF])) _start += 3;
        if (Rest.StartsWith<byte>([0xFF, 0xFE]) || Rest.StartsWith<byte>([0xFE, 0xFF]))
            throw new RhoException($"{path}: the text is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)");
        return !_ended;
    }

    /// <summary>Makes the first bytes of <see cref="Rest"/> the record, and goes past it and what ends it.</summary>
    protected bool Take(int length, int terminator, bool cut = false, string? fault = null)
    {
        (_recordStart, _recordLength, Cut, Fault) = (_start, fault is null ? length : 0, cut, fault);
        Line = _nextLine;
        Skip(length + terminator);
        return true;
    }

    protected void Skip(int count)
    {
        _nextLine += _buffer.AsSpan(_start, count).Count((byte)'\n');
        _start += count;
    }

    /// <summary>Bytes of the first line in <see cref="Rest"/> with its line break; reads until there is one, or the end, or too much.</summary>
    protected int FirstLine(int from = 0)
    {
        while (true)
        {
            var end = Rest[from..].IndexOf((byte)'\n');
            if (end >= 0) return from + end + 1;
            from = Rest.Length;
            if (from > MaxRecordBytes || !Fill()) return from;
        }
    }

    /// <summary>Makes a line that is too long a bad record and goes past it.</summary>
    protected bool TakeOverlongLine()
    {
        Take(Rest.Length, 0, fault: $"the line is longer than {MaxRecordBytes >> 20} MiB");
        while (true)
        {
            var end = Rest.IndexOf((byte)'\n');
            Skip(end >= 0 ? end + 1 : Rest.Length);
            if (end >= 0 || !Fill()) return true;
        }
    }

    protected static bool IsBlank(ReadOnlySpan<byte> bytes) => bytes.IndexOfAnyExcept(" \t\r\n"u8) < 0;

    private sealed class TextReader(string path, Stream content, string? separator) : RecordReader(path, content)
    {
        private readonly byte[]? _separator = string.IsNullOrEmpty(separator) ? null : Encoding.UTF8.GetBytes(separator);

        public override bool Read()
        {
            var searched = 0;
            while (true)
            {
                var found = _separator is null ? -1 : Rest[searched..].IndexOf(_separator);
                if (found >= 0 && searched + found <= MaxDocumentBytes) return Take(searched + found, _separator!.Length);
                if (Rest.Length > MaxDocumentBytes + 4) return Take(CutPoint(Rest, MaxDocumentBytes), 0, cut: true);
                searched = _separator is null ? Rest.Length : Math.Max(0, Rest.Length - _separator.Length + 1);
                if (Fill()) continue;
                return Rest.Length > 0 && Take(Rest.Length, 0);
            }
        }
    }

    private sealed class LineReader(string path, Stream content) : RecordReader(path, content)
    {
        public override bool Read()
        {
            while (true)
            {
                var length = FirstLine();
                if (length == 0) return false;
                if (length > MaxRecordBytes) return TakeOverlongLine();
                if (!IsBlank(Rest[..length])) return Take(length, 0);
                Skip(length);
            }
        }
    }

    /// <summary>Finds where JSON values end by counting brackets outside strings; whether a value is valid is seen when it is parsed.</summary>
    private sealed class JsonReader(string path, Stream content) : RecordReader(path, content)
    {
        private bool _insideArray, _arrayOver;

        public override bool Read()
        {
            while (true)
            {
                var first = Rest.IndexOfAnyExcept(" \t\r\n"u8);
                if (first < 0)
                {
                    Skip(Rest.Length);
                    if (Fill()) continue;
                    if (!_insideArray) return false;
                    _insideArray = false;
                    return Take(0, 0, fault: "the file ends inside its array");
                }

                Skip(first);
                switch (Rest[0])
                {
                    case (byte)'[' when !_insideArray && !_arrayOver:
                        _insideArray = true;
                        Skip(1);
                        continue;
                    case (byte)']' when _insideArray:
                        (_insideArray, _arrayOver) = (false, true);
                        Skip(1);
                        continue;
                    case (byte)',' when _insideArray:
                        Skip(1);
                        continue;
                    default:
                        return TakeValue();
                }
            }
        }

        private bool TakeValue()
        {
            var (depth, inString, at) = (0, false, 0);
            while (true)
            {
                var rest = Rest;
                for (; at < rest.Length; at++)
                {
                    var c = rest[at];
                    if (inString)
                    {
                        if (c == '\\') at++;
                        else if (c == '"' && depth == 0) return Take(at + 1, 0);
                        else if (c == '"') inString = false;
                        continue;
                    }

                    switch (c)
                    {
                        case (byte)'"':
                            inString = true;
                            break;
                        case (byte)'{' or (byte)'[':
                            depth++;
                            break;
                        case (byte)'}' or (byte)']':
                            if (depth <= 1) return Take(depth == 1 || at == 0 ? at + 1 : at, 0);
                            depth--;
                            break;
                        case (byte)',' or (byte)' ' or (byte)'\t' or (byte)'\r' or (byte)'\n' when depth == 0:
                            return Take(Math.Max(at, 1), 0);
                    }
                }

                if (at > MaxRecordBytes) return GiveUp($"the JSON value that begins here is longer than {MaxRecordBytes >> 20} MiB");
                if (!Fill()) return depth == 0 && !inString ? Take(Rest.Length, 0) : GiveUp("the JSON value that begins here does not end");
            }
        }

        // After a bracket or quote that is missing its partner the next line is as good a place to go on as any.
        private bool GiveUp(string fault) => Take(FirstLine(), 0, fault: fault);
    }

    /// <summary>Rows of a table with quoted fields, which may go over lines. The first row names the columns.</summary>
    private sealed class TableReader : RecordReader
    {
        private enum Field
        {
            Begin,
            Plain,
            Quoted,
            Closed,
        }

        private readonly byte _delimiter;

        public TableReader(string path, Stream content, byte delimiter) : base(path, content)
        {
            _delimiter = delimiter;
            if (!Read()) return;
            if (Fault is not null || !System.Text.Unicode.Utf8.IsValid(Record)) throw new RhoException($"{path}: the header line is not valid: {Fault ?? "it is not UTF-8"}");
            var fields = new List<Range>();
            var unquoted = new byte[Record.Length];
            TableRow.Split(Record, delimiter, fields, unquoted);
            Columns = [.. fields.Select(range => Encoding.UTF8.GetString(unquoted[range]))];
        }

        public override bool Read()
        {
            while (true)
            {
                var (at, state) = (0, Field.Begin);
                while (true)
                {
                    var rest = Rest;
                    for (; at < rest.Length && (rest[at] != '\n' || state == Field.Quoted); at++)
                    {
                        var c = rest[at];
                        state = state switch
                        {
                            Field.Quoted => c == '"' ? Field.Closed : Field.Quoted,
                            Field.Begin or Field.Closed when c == '"' => Field.Quoted, // a doubled quote closes and opens again
                            _ => c == _delimiter ? Field.Begin : Field.Plain,
                        };
                    }

                    if (at < rest.Length) break;
                    // After a quote without partner the next line is as good a place to go on as any.
                    if (at > MaxRecordBytes) return Take(FirstLine(), 0, fault: $"the row that begins here is longer than {MaxRecordBytes >> 20} MiB: is a quote missing?");
                    if (Fill()) continue;
                    if (state == Field.Quoted) return Take(FirstLine(), 0, fault: "the quoted field that begins here does not end");
                    if (at == 0) return false;
                    break;
                }

                var length = Math.Min(at + 1, Rest.Length);
                if (!IsBlank(Rest[..length]) || (Columns is { Length: 1 } && Rest[0] == '"')) return Take(length, 0);
                Skip(length);
            }
        }
    }
}

/// <summary>A row of a table, split into fields.</summary>
internal static class TableRow
{
    /// <summary>Splits a row and takes quotes away. Ranges are of <paramref name="unquoted"/>, which is as long as the row.</summary>
    public static void Split(ReadOnlySpan<byte> row, byte delimiter, List<Range> fields, Span<byte> unquoted)
    {
        row = row.TrimEnd("\r\n"u8);
        fields.Clear();
        var (at, length) = (0, 0);
        while (true)
        {
            var begin = length;
            if (at < row.Length && row[at] == '"')
            {
                for (at++; at < row.Length; at++)
                {
                    if (row[at] == '"' && (++at >= row.Length || row[at] != '"')) break;
                    unquoted[length++] = row[at];
                }
            }

            // Also what follows a closing quote by mistake is kept.
            var rest = row[at..];
            var end = rest.IndexOf(delimiter);
            var plain = end < 0 ? rest : rest[..end];
            plain.CopyTo(unquoted[length..]);
            length += plain.Length;
            fields.Add(begin..length);
            if (end < 0) return;
            at += end + 1;
        }
    }
}

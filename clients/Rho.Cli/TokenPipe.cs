using System.Buffers;
using System.Globalization;
using System.IO.Pipelines;
using System.Text;
using System.Text.Json;
using Rho.Tokenization;

namespace Rho.Cli;

internal enum TokenizedForm
{
    Ids,
    Tokens,
    Offsets,
    Count,
    Text,
}

/// <summary>
/// Text that is streamed through a tokenizer: line by line, or file by file. What has been read is answered before more is waited
/// for, so that it serves in a pipe. Memory is bounded by the longest text.
/// </summary>
internal sealed class TokenPipe(Tokenizer tokenizer)
{
    private const int BrokenPipe = 32;

    private static readonly UTF8Encoding Utf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);
    private static readonly SearchValues<char> BetweenIds = SearchValues.Create(" \t\r\n,[]");

    private readonly List<int> _ids = [];
    private readonly StringBuilder _line = new();
    private long _texts, _tokens, _bytes;

    public TokenizedForm Form { get; init; }

    public bool Decode { get; init; }

    /// <summary>A file is one text; otherwise each of its lines is one.</summary>
    public bool Whole { get; init; }

    /// <summary>Adds the tokens around a text, or leaves special ones out when decoding.</summary>
    public bool Special { get; init; }

    public bool Chat { get; init; }

    public bool GenerationPrompt { get; init; }

    /// <param name="files">Paths, or - for standard input.</param>
    /// <param name="openInput">Opens standard input.</param>
    /// <exception cref="RhoException">A file cannot be read, or a text is not what it should be; the message names file and line.</exception>
    public async Task RunAsync(IReadOnlyList<string> files, Func<Stream> openInput, Stream output, CancellationToken cancellation)
    {
        if (Chat && tokenizer.ChatTemplate is null) throw new RhoException("the tokenizer has no chat template");
        var writer = PipeWriter.Create(output, new StreamPipeWriterOptions(leaveOpen: true));
        try
        {
            foreach (var file in files)
            {
                await using var input = file == "-" ? openInput() : Open(file);
                var name = file == "-" ? "standard input" : file;
                if (Whole) await RunWholeAsync(name, input, writer, cancellation);
                else await RunLinesAsync(name, input, writer, cancellation);
            }

            if (Form == TokenizedForm.Count)
                Write(writer, string.Create(CultureInfo.InvariantCulture, $"{_texts} texts, {_tokens} tokens, {_bytes} bytes{(_bytes > 0 ? $", {(double)_tokens / _bytes:F4} tokens per byte" : "")}\n"));
            await writer.FlushAsync(cancellation);
        }
        catch (IOException error) when ((error.HResult & 0xFFFF) == BrokenPipe)
        {
            // Whoever reads has seen enough.
        }
    }

    private static FileStream Open(string path)
    {
        try
        {
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new NotFoundException($"{path}: no such file");
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{path}: cannot be read: {error.Message}", error);
        }
    }

    private async Task RunLinesAsync(string name, Stream input, PipeWriter writer, CancellationToken cancellation)
    {
        var reader = PipeReader.Create(input, new StreamPipeReaderOptions(bufferSize: 1 << 16, leaveOpen: true));
        long line = 0;
        while (true)
        {
            // A console's read does not end when it is cancelled.
            var result = await reader.ReadAsync(cancellation).AsTask().WaitAsync(cancellation);
            var buffer = result.Buffer;
            while (buffer.PositionOf((byte)'\n') is { } end)
            {
                Take(name, ++line, buffer.Slice(0, end), writer);
                buffer = buffer.Slice(buffer.GetPosition(1, end));
            }

            if (result.IsCompleted)
            {
                if (!buffer.IsEmpty) Take(name, ++line, buffer, writer);
                await reader.CompleteAsync();
                return;
            }

            // Searched up to its end: only new bytes can complete the line.
            reader.AdvanceTo(buffer.Start, buffer.End);
            await writer.FlushAsync(cancellation);
        }
    }

    private async Task RunWholeAsync(string name, Stream input, PipeWriter writer, CancellationToken cancellation)
    {
        using var bytes = new MemoryStream();
        await input.CopyToAsync(bytes, cancellation).WaitAsync(cancellation);
        Take(name, line: null, new ReadOnlySequence<byte>(bytes.GetBuffer(), 0, (int)bytes.Length), writer);
    }

    private void Take(string name, long? line, ReadOnlySequence<byte> bytes, PipeWriter writer)
    {
        var place = line is null ? name : string.Create(CultureInfo.InvariantCulture, $"{name}:{line}");
        string text;
        try
        {
            text = Utf8.GetString(bytes);
        }
        catch (DecoderFallbackException error)
        {
            throw new RhoException($"{place}: not valid UTF-8", error);
        }

        if (Decode)
        {
            ReadIds(place, text);
            Write(writer, tokenizer.Decode(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_ids), skipSpecialTokens: Special));
            Write(writer, "\n");
            return;
        }

        if (Chat)
        {
            text = Render(place, text);
            if (Form == TokenizedForm.Text)
            {
                Write(writer, text);
                Write(writer, "\n");
                return;
            }
        }

        Encode(text, bytes.Length, writer);
    }

    private void Encode(string text, long bytes, PipeWriter writer)
    {
        _line.Clear();
        if (Form == TokenizedForm.Offsets)
        {
            // Characters as Unicode counts them, not the UTF-16 units of .NET.
            var (unit, character) = (0, 0);
            var characters = new int[text.Length + 1];
            foreach (var rune in text.EnumerateRunes())
            {
                characters.AsSpan(unit, rune.Utf16SequenceLength).Fill(character++);
                unit += rune.Utf16SequenceLength;
            }

            characters[unit] = character;
            foreach (var (id, start, end) in tokenizer.EncodeWithOffsets(text, addSpecialTokens: Special))
                _line.Append(CultureInfo.InvariantCulture, $"{id}\t{characters[start]}\t{characters[end]}\t{Escape(tokenizer.IdToToken(id))}\n");
            _line.Append('\n');
            Write(writer, _line.ToString());
            return;
        }

        _ids.Clear();
        tokenizer.Encode(text, _ids, addSpecialTokens: Special);
        (_texts, _tokens, _bytes) = (_texts + 1, _tokens + _ids.Count, _bytes + bytes);
        if (Form == TokenizedForm.Count) return;
        foreach (var id in _ids)
        {
            if (_line.Length > 0) _line.Append(' ');
            if (Form == TokenizedForm.Tokens) _line.Append(Escape(tokenizer.IdToToken(id)));
            else _line.Append(CultureInfo.InvariantCulture, $"{id}");
        }

        Write(writer, _line.Append('\n').ToString());
    }

    private void ReadIds(string place, string text)
    {
        _ids.Clear();
        for (var rest = text.AsSpan(); rest.Length > 0;)
        {
            var start = rest.IndexOfAnyExcept(BetweenIds);
            if (start < 0) return;
            rest = rest[start..];
            var length = rest.IndexOfAny(BetweenIds) is >= 0 and var end ? end : rest.Length;
            if (!int.TryParse(rest[..length], NumberStyles.None, CultureInfo.InvariantCulture, out var id) || id >= tokenizer.VocabularySize)
                throw new RhoException($"{place}: \"{rest[..length]}\" is no token id (0 to {tokenizer.VocabularySize - 1})");
            _ids.Add(id);
            rest = rest[length..];
        }
    }

    /// <summary>A conversation is an array of messages, or an object with "messages" and what else the template knows, such as "tools".</summary>
    private string Render(string place, string json)
    {
        try
        {
            using var document = JsonDocument.Parse(json);
            var root = document.RootElement;
            if (root.ValueKind == JsonValueKind.Array) return tokenizer.ChatTemplate!.Render(root, GenerationPrompt);
            if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("messages", out var messages))
                throw new RhoException($"{place}: expected an array of messages, or an object with \"messages\"");
            var others = root.EnumerateObject().Where(field => !field.NameEquals("messages")).ToDictionary(field => field.Name, field => field.Value, StringComparer.Ordinal);
            return tokenizer.ChatTemplate!.Render(messages, GenerationPrompt, others);
        }
        catch (JsonException error)
        {
            throw new RhoException($"{place}: not valid JSON{(Whole ? "" : "; for JSON over several lines there is --whole")}: {error.Message}", error);
        }
        catch (RhoException error) when (!error.Message.StartsWith(place, StringComparison.Ordinal))
        {
            throw new RhoException($"{place}: {error.Message}", error);
        }
    }

    /// <summary>Blanks and line breaks in a token would look like what separates tokens.</summary>
    private static string Escape(string token) =>
        token.AsSpan().IndexOfAny(" \t\r\n") < 0 ? token : token.Replace(" ", "\\s", StringComparison.Ordinal).Replace("\t", "\\t", StringComparison.Ordinal).Replace("\r", "\\r", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);

    private static void Write(PipeWriter writer, ReadOnlySpan<char> text) => Encoding.UTF8.GetBytes(text, writer);
}

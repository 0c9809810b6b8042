using System.Globalization;
using System.Text;

namespace Rho.Jinja;

internal enum TokenKind
{
    Text,
    BlockBegin,
    BlockEnd,
    PrintBegin,
    PrintEnd,
    Name,
    Text2,
    Integer,
    Float,
    Operator,
    End,
}

internal readonly record struct TemplateToken(TokenKind Kind, string Text, int Line);

/// <summary>
/// Cuts a Jinja template into tokens, with trim_blocks and lstrip_blocks on, as transformers sets them: the line break after
/// a block tag and the blanks before one on its line are not part of the text.
/// </summary>
internal sealed class TemplateLexer
{
    private static readonly string[] Operators =
        ["//", "**", "==", "!=", "<=", ">=", "+", "-", "/", "*", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{", "}", ",", ".", ":", "|", ";"];

    private readonly string _source;
    private readonly List<TemplateToken> _tokens = [];
    private int _at;
    private int _line = 1;
    private int _lineCountedTo;

    private TemplateLexer(string source)
    {
        source = source.ReplaceLineEndings("\n");
        _source = source.EndsWith('\n') ? source[..^1] : source;
    }

    public static List<TemplateToken> Read(string source)
    {
        var lexer = new TemplateLexer(source);
        lexer.Run();
        return lexer._tokens;
    }

    private void Run()
    {
        var lineStarting = true;
        while (_at < _source.Length)
        {
            var start = NextTag(_at);
            if (start < 0)
            {
                Add(TokenKind.Text, _source[_at..]);
                _at = _source.Length;
                break;
            }

            var text = _source[_at..start];
            var kind = _source[start + 1];
            var sign = start + 2 < _source.Length ? _source[start + 2] : '\0';
            if (sign == '-')
            {
                text = text.TrimEnd();
            }
            else if (kind != '{' && sign != '+')
            {
                // Blanks before a block or comment go, if there is nothing else before it on its line.
                var lineStart = text.LastIndexOf('\n') + 1;
                if ((lineStart > 0 || lineStarting) && string.IsNullOrWhiteSpace(text[lineStart..])) text = text[..lineStart];
            }

            Add(TokenKind.Text, text);
            _at = start + 2 + (sign is '-' or '+' && !(kind == '{' && sign == '+') ? 1 : 0);
            CountLines();
            switch (kind)
            {
                case '#':
                    SkipComment();
                    break;
                case '%' when TryRaw():
                    break;
                case '%':
                    Add(TokenKind.BlockBegin, "");
                    Expression("%}", TokenKind.BlockEnd);
                    break;
                default:
                    Add(TokenKind.PrintBegin, "");
                    Expression("}}", TokenKind.PrintEnd);
                    break;
            }

            lineStarting = _source[_at - 1] == '\n';
        }

        Add(TokenKind.End, "");
    }

    private int NextTag(int from)
    {
        for (var i = _source.IndexOf('{', from); i >= 0 && i + 1 < _source.Length; i = _source.IndexOf('{', i + 1))
        {
            if (_source[i + 1] is '{' or '%' or '#') return i;
        }

        return -1;
    }

    private void SkipComment()
    {
        var end = _source.IndexOf("#}", _at, StringComparison.Ordinal);
        if (end < 0) throw Error("a comment '{#' has no '#}'");
        var sign = end > _at ? _source[end - 1] : '\0';
        _at = end + 2;
        AfterTag(sign == '-', trimLine: sign != '+');
    }

    private void AfterTag(bool strip, bool trimLine)
    {
        if (strip)
        {
            while (_at < _source.Length && char.IsWhiteSpace(_source[_at])) _at++;
        }
        else if (trimLine && _at < _source.Length && _source[_at] == '\n')
        {
            _at++;
        }
    }

    /// <summary>{% raw %} up to {% endraw %} is text as it stands.</summary>
    private bool TryRaw()
    {
        var at = _at;
        if (!TagIs("raw", ref at, out var strip)) return false;
        _at = at;
        AfterTag(strip, trimLine: false);
        for (var end = _source.IndexOf("{%", _at, StringComparison.Ordinal); end >= 0; end = _source.IndexOf("{%", end + 2, StringComparison.Ordinal))
        {
            at = end + 2;
            var stripBefore = at < _source.Length && _source[at] == '-';
            if (at < _source.Length && _source[at] is '-' or '+') at++;
            if (!TagIs("endraw", ref at, out strip)) continue;
            var text = _source[_at..end];
            if (stripBefore) text = text.TrimEnd();
            else text = text[..(text.LastIndexOf('\n') + 1)] + (string.IsNullOrWhiteSpace(text[(text.LastIndexOf('\n') + 1)..]) && text.Contains('\n', StringComparison.Ordinal) ? "" : text[(text.LastIndexOf('\n') + 1)..]);
            Add(TokenKind.Text, text);
            _at = at;
            AfterTag(strip, trimLine: true);
            return true;
        }

        throw Error("'{% raw %}' has no '{% endraw %}'");
    }

    private bool TagIs(string name, ref int at, out bool strip)
    {
        strip = false;
        while (at < _source.Length && char.IsWhiteSpace(_source[at])) at++;
        if (!_source.AsSpan(at).StartsWith(name)) return false;
        at += name.Length;
        while (at < _source.Length && char.IsWhiteSpace(_source[at])) at++;
        if (at < _source.Length && _source[at] is '-' or '+')
        {
            strip = _source[at] == '-';
            at++;
        }

        if (!_source.AsSpan(at).StartsWith("%}")) return false;
        at += 2;
        return true;
    }

    private void Expression(string closing, TokenKind endKind)
    {
        var depth = 0;
        while (true)
        {
            while (_at < _source.Length && char.IsWhiteSpace(_source[_at])) _at++;
            CountLines();
            if (_at >= _source.Length) throw Error($"a tag has no '{closing}'");
            if (depth == 0)
            {
                var rest = _source.AsSpan(_at);
                var sign = rest[0];
                if (rest.StartsWith(closing) || (sign is '-' or '+' && rest[1..].StartsWith(closing) && !(sign == '+' && closing == "}}")))
                {
                    _at += sign is '-' or '+' ? 3 : 2;
                    Add(endKind, "");
                    AfterTag(sign == '-', trimLine: closing == "%}" && sign != '+');
                    return;
                }
            }

            var c = _source[_at];
            if (c is '\'' or '"')
            {
                ReadText(c);
            }
            else if (char.IsAsciiDigit(c))
            {
                ReadNumber();
            }
            else if (char.IsLetter(c) || c == '_')
            {
                var start = _at;
                while (_at < _source.Length && (char.IsLetterOrDigit(_source[_at]) || _source[_at] == '_')) _at++;
                Add(TokenKind.Name, _source[start.._at]);
            }
            else
            {
                var found = Array.Find(Operators, op => _source.AsSpan(_at).StartsWith(op)) ?? throw Error($"unexpected character '{c}'");
                if (found is "(" or "[" or "{") depth++;
                if (found is ")" or "]" or "}") depth--;
                if (depth < 0) throw Error($"unexpected '{found}'");
                Add(TokenKind.Operator, found);
                _at += found.Length;
            }
        }
    }

    private void ReadText(char quote)
    {
        var text = new StringBuilder();
        var start = _at++;
        while (true)
        {
            if (_at >= _source.Length) throw Error($"the text that starts with {_source[start..Math.Min(_source.Length, start + 20)]} has no end");
            var c = _source[_at++];
            if (c == quote) break;
            if (c != '\\')
            {
                text.Append(c);
                continue;
            }

            if (_at >= _source.Length) throw Error("'\\' at the end");
            c = _source[_at++];
            switch (c)
            {
                case 'n':
                    text.Append('\n');
                    break;
                case 't':
                    text.Append('\t');
                    break;
                case 'r':
                    text.Append('\r');
                    break;
                case 'a':
                    text.Append('\a');
                    break;
                case 'b':
                    text.Append('\b');
                    break;
                case 'f':
                    text.Append('\f');
                    break;
                case 'v':
                    text.Append('\v');
                    break;
                case '\\' or '\'' or '"':
                    text.Append(c);
                    break;
                case '\n':
                    break;
                case 'x' or 'u' or 'U':
                    var digits = c switch { 'x' => 2, 'u' => 4, _ => 8 };
                    if (_at + digits > _source.Length || !int.TryParse(_source.AsSpan(_at, digits), NumberStyles.AllowHexSpecifier, null, out var value) || value > 0x10FFFF)
                        throw Error($"'\\{c}' needs {digits} hex digits of a character");
                    _at += digits;
                    if (value is >= 0xD800 and <= 0xDFFF) text.Append((char)value);
                    else text.Append(new Rune(value).ToString());
                    break;
                case >= '0' and <= '7':
                    throw Error($"octal escape '\\{c}' is not supported");
                default:
                    text.Append('\\').Append(c);
                    break;
            }
        }

        Add(TokenKind.Text2, text.ToString());
        CountLines();
    }

    private void ReadNumber()
    {
        var start = _at;
        while (_at < _source.Length && (char.IsAsciiDigit(_source[_at]) || _source[_at] == '_')) _at++;
        var kind = TokenKind.Integer;
        if (_at + 1 < _source.Length && _source[_at] == '.' && char.IsAsciiDigit(_source[_at + 1]))
        {
            kind = TokenKind.Float;
            _at++;
            while (_at < _source.Length && char.IsAsciiDigit(_source[_at])) _at++;
        }

        if (_at < _source.Length && _source[_at] is 'e' or 'E')
        {
            var exponent = _at + 1;
            if (exponent < _source.Length && _source[exponent] is '+' or '-') exponent++;
            if (exponent < _source.Length && char.IsAsciiDigit(_source[exponent]))
            {
                kind = TokenKind.Float;
                _at = exponent;
                while (_at < _source.Length && char.IsAsciiDigit(_source[_at])) _at++;
            }
        }

        Add(kind, _source[start.._at].Replace("_", "", StringComparison.Ordinal));
    }

    private void Add(TokenKind kind, string text)
    {
        if (kind != TokenKind.Text || text.Length > 0) _tokens.Add(new TemplateToken(kind, text, _line));
    }

    private void CountLines()
    {
        _line += _source.AsSpan(_lineCountedTo, _at - _lineCountedTo).Count('\n');
        _lineCountedTo = _at;
    }

    private RhoException Error(string problem)
    {
        CountLines();
        return new RhoException($"chat template, line {_line}: {problem}");
    }
}

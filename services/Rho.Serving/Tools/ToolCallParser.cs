using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Rho.Serving.Tools;

/// <summary>A piece of an answer that may hold calls.</summary>
/// <param name="Call">The number of the call, from 0; -1 for text beside the calls.</param>
/// <param name="Name">With a call's first piece: the function.</param>
/// <param name="Text">More text, or more of the call's arguments as JSON.</param>
internal readonly record struct AnswerPiece(int Call, string? Name, string Text);

/// <summary>
/// Finds calls of functions in an answer as it comes. What may still become a call is held back; arguments are passed on as they come.
/// What looks like a call and is none, because its JSON is broken or no such function was offered, is text. Not thread-safe.
/// </summary>
internal sealed class ToolCallParser(ToolSet tools)
{
    private static readonly Regex s_callHead = new(
        """\A\s*\{\s*("type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"(?<name>[^"\\]*)"\s*,\s*"(?<member>arguments|parameters)"\s*:\s*(?<members>\{)""",
        RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture | RegexOptions.NonBacktracking);

    private readonly StringBuilder _held = new();
    private State _state = tools.Form == ToolCallForm.Bare ? State.Between : State.Text;
    private int _calls;
    private int _depth;
    private bool _inString;
    private bool _escaped;

    private enum State
    {
        /// <summary>Outside of calls.</summary>
        Text,

        /// <summary>Where a bare call may begin.</summary>
        Between,

        /// <summary>In a call, before its arguments.</summary>
        Head,

        /// <summary>In a call's arguments.</summary>
        Arguments,

        /// <summary>In a call, behind its arguments.</summary>
        Tail,
    }

    /// <summary>Takes text; returns what is known of it now.</summary>
    public List<AnswerPiece> Append(string text)
    {
        var pieces = new List<AnswerPiece>();
        _held.Append(text);
        while (Step(pieces, ended: false)) { }
        return pieces;
    }

    /// <summary>What was held back, once no more text comes.</summary>
    public List<AnswerPiece> End()
    {
        var pieces = new List<AnswerPiece>();
        while (Step(pieces, ended: true)) { }
        return pieces;
    }

    /// <summary>Goes one state on; false when more text is needed.</summary>
    private bool Step(List<AnswerPiece> pieces, bool ended)
    {
        var held = _held.ToString();
        if (held.Length == 0) return false;
        return _state switch
        {
            State.Text => tools.Form == ToolCallForm.Tagged ? StepText(held, pieces, ended) : Give(held, pieces),
            State.Between => StepBetween(held, pieces, ended),
            State.Head => StepHead(held, pieces, ended),
            State.Arguments => StepArguments(held, pieces),
            _ => StepTail(held, ended),
        };
    }

    private bool StepText(string held, List<AnswerPiece> pieces, bool ended)
    {
        var open = held.IndexOf(ToolCallForms.Open, StringComparison.Ordinal);
        if (open >= 0)
        {
            SendText(held[..open], pieces, beforeCall: true);
            Keep(held[(open + ToolCallForms.Open.Length)..], State.Head);
            return true;
        }

        // The blanks before a call belong to it: what ends in blanks, or in the beginning of a tag, waits.
        var length = held.Length;
        if (!ended)
        {
            for (var tail = Math.Min(ToolCallForms.Open.Length - 1, held.Length); tail > 0; tail--)
            {
                if (!ToolCallForms.Open.StartsWith(held[^tail..], StringComparison.Ordinal)) continue;
                length -= tail;
                break;
            }

            length = held[..length].TrimEnd().Length;
        }

        SendText(held[..length], pieces, beforeCall: false);
        Keep(held[length..], State.Text);
        return false;
    }

    private bool StepBetween(string held, List<AnswerPiece> pieces, bool ended)
    {
        var begin = held.AsSpan().IndexOfAnyExcept(" \t\r\n;,");
        if (begin < 0 && !ended) return false;
        if (begin >= 0 && held[begin] == '{')
        {
            Keep(held[begin..], State.Head);
            return true;
        }

        // After a call nothing but calls is expected; before the first, it is no call at all.
        _state = State.Text;
        return Give(held, pieces);
    }

    private bool StepHead(string held, List<AnswerPiece> pieces, bool ended)
    {
        if (s_callHead.Match(held) is { Success: true } head && (tools.Form == ToolCallForm.Tagged || head.Groups["member"].ValueSpan.SequenceEqual("parameters")))
        {
            var name = JsonSerializer.Deserialize<string>($"\"{head.Groups["name"].Value}\"")!;
            if (tools.Has(name))
            {
                if (!Ignored) pieces.Add(new AnswerPiece(_calls, name, ""));
                (_depth, _inString, _escaped) = (0, false, false);
                Keep(held[head.Groups["members"].Index..], State.Arguments);
                return true;
            }
        }

        // Members in another order, or arguments within a string: known once the call is whole.
        var end = EndOfHead(held);
        if (end < 0 && !ended) return false;
        var body = end < 0 ? held : held[..end];
        if (ReadWhole(body) is { } call)
        {
            if (!Ignored) pieces.Add(new AnswerPiece(_calls, call.Name, call.Arguments));
            _calls++;
            Keep(end < 0 ? "" : held[end..], tools.Form == ToolCallForm.Tagged ? State.Tail : State.Between);
            return true;
        }

        SendText((tools.Form == ToolCallForm.Tagged ? ToolCallForms.Open : "") + body, pieces, beforeCall: false);
        Keep(held[body.Length..], State.Text);
        return true;
    }

    /// <summary>Where a call's JSON ends: at its tag, or where its braces close; -1 where that has not come.</summary>
    private int EndOfHead(string held)
    {
        if (tools.Form == ToolCallForm.Tagged) return held.IndexOf(ToolCallForms.Close, StringComparison.Ordinal);
        (_depth, _inString, _escaped) = (0, false, false);
        for (var i = 0; i < held.Length; i++)
        {
            if (Closes(held[i])) return i + 1;
        }

        return -1;
    }

    private bool StepArguments(string held, List<AnswerPiece> pieces)
    {
        var length = 0;
        var closed = false;
        while (length < held.Length && !closed) closed = Closes(held[length++]);
        if (!Ignored) pieces.Add(new AnswerPiece(_calls, null, held[..length]));
        if (closed) _calls++;
        Keep(held[length..], closed ? State.Tail : State.Arguments);
        return closed;
    }

    private bool StepTail(string held, bool ended)
    {
        var (close, next) = tools.Form == ToolCallForm.Tagged ? (ToolCallForms.Close, State.Text) : ("}", State.Between);
        var end = held.IndexOf(close, StringComparison.Ordinal);
        if (end >= 0) Keep(held[(end + close.Length)..], next);
        else if (ended) _held.Clear();
        return end >= 0;
    }

    /// <summary>Follows JSON; true at the brace that closes the outermost object.</summary>
    private bool Closes(char c)
    {
        if (_escaped)
        {
            _escaped = false;
            return false;
        }

        if (_inString && c == '\\') _escaped = true;
        else if (c == '"') _inString = !_inString;
        if (_inString) return false;
        if (c is '{' or '[') _depth++;
        return c is '}' or ']' && --_depth == 0;
    }

    private (string Name, string Arguments)? ReadWhole(string body)
    {
        try
        {
            using var json = JsonDocument.Parse(body);
            var call = json.RootElement;
            if (call.ValueKind != JsonValueKind.Object || !call.TryGetProperty("name", out var name) || name.ValueKind != JsonValueKind.String || !tools.Has(name.GetString()!)) return null;
            if (!call.TryGetProperty(ToolCallForms.Arguments(tools.Form), out var arguments)) return tools.Form == ToolCallForm.Tagged ? (name.GetString()!, "{}") : null;
            if (arguments.ValueKind == JsonValueKind.String) return (name.GetString()!, arguments.GetString()!);
            return arguments.ValueKind == JsonValueKind.Object ? (name.GetString()!, arguments.GetRawText()) : null;
        }
        catch (JsonException)
        {
            // A model's text need not be JSON: then it is text.
            return null;
        }
    }

    /// <summary>Further calls than may be made are left out.</summary>
    private bool Ignored => _calls > 0 && !tools.Parallel;

    private bool Give(string held, List<AnswerPiece> pieces)
    {
        SendText(held, pieces, beforeCall: false);
        Keep("", _state);
        return false;
    }

    private void SendText(string text, List<AnswerPiece> pieces, bool beforeCall)
    {
        if (beforeCall) text = text.TrimEnd();
        if (text.Length == 0 || (_calls > 0 && string.IsNullOrWhiteSpace(text))) return;
        pieces.Add(new AnswerPiece(-1, null, text));
    }

    private void Keep(string rest, State state)
    {
        _held.Clear().Append(rest);
        _state = state;
    }
}

using System.Text;
using Rho.Serving.Engine;
using Rho.Serving.Tools;

namespace Rho.Serving.Http;

/// <summary>A call of a function in an answer.</summary>
internal sealed record ChatCall(string Id, string Name)
{
    /// <summary>JSON, as the model wrote it.</summary>
    public StringBuilder Arguments { get; } = new();
}

/// <summary>One choice of a chat's answer as it comes: text and calls of functions.</summary>
internal sealed class ChatChoice(ToolSet? tools)
{
    private readonly ToolCallParser? _parser = tools is null ? null : new ToolCallParser(tools);

    public StringBuilder Text { get; } = new();

    public List<ChatCall> Calls { get; } = [];

    public List<ScoredToken> Tokens { get; } = [];

    public FinishReason? Finish { get; private set; }

    public string? StopReason { get; private set; }

    /// <summary>As OpenAI names it; null while the choice goes on.</summary>
    public string? FinishName => Finish == FinishReason.Stop && Calls.Count > 0 ? "tool_calls" : Answers.FinishName(Finish);

    /// <summary>Takes what the engine sends, and says what is new.</summary>
    public List<AnswerPiece> Add(GenerationChunk chunk)
    {
        Tokens.AddRange(chunk.Tokens);
        Finish = chunk.Finish ?? Finish;
        StopReason = chunk.StopReason ?? StopReason;
        List<AnswerPiece> pieces = _parser is not null ? _parser.Append(chunk.Text) : chunk.Text.Length > 0 ? [new AnswerPiece(-1, null, chunk.Text)] : [];
        if (chunk.Finish is not null && _parser is not null) pieces.AddRange(_parser.End());
        foreach (var piece in pieces)
        {
            if (piece.Name is not null) Calls.Add(new ChatCall($"call_{Guid.NewGuid().ToString("N")[..24]}", piece.Name));
            (piece.Call < 0 ? Text : Calls[piece.Call].Arguments).Append(piece.Text);
        }

        return pieces;
    }
}

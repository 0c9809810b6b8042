using System.Text;
using Rho.Jinja;

namespace Rho.Serving.Models;

/// <summary>Texts to tokens, refusing first what cannot fit.</summary>
internal static class Prompts
{
    /// <summary>Encodes a text. What is too long for the context, or for the queue, is refused by its size, before it is encoded.</summary>
    /// <param name="last">Only so many last tokens count; null counts all.</param>
    public static int[] Encode(ServedModel model, string text, bool addSpecialTokens, string client, int? last = null)
    {
        var bytes = Encoding.UTF8.GetByteCount(text);
        var atLeast = (bytes + model.LongestToken - 1) / model.LongestToken;
        if (last is null && atLeast > model.Engine.ContextLength)
            throw new ContextLengthException($"the prompt has {bytes} bytes, which are {atLeast} tokens or more: beyond the context of {model.Engine.ContextLength} tokens");
        model.Engine.CheckRoom(Math.Min(atLeast, last ?? atLeast), client);
        return Last(model.Tokenizer.Encode(text, addSpecialTokens), last);
    }

    /// <summary>The last tokens of a prompt; all where <paramref name="count"/> is null.</summary>
    public static int[] Last(int[] tokens, int? count) => count < tokens.Length ? tokens[^count.Value..] : tokens;

    /// <summary>How many of a prompt's tokens a wish leaves: -1 is as many as the context has room for.</summary>
    public static int? Limit(ServedModel model, int? wish, int? newTokens) => wish == -1 ? Math.Max(1, model.Engine.ContextLength - (newTokens ?? 1)) : wish;

    /// <summary>Renders a conversation with the model's template. The template writes what begins a text itself.</summary>
    /// <exception cref="InvalidFieldException">The model has no chat template, or the template refuses the conversation.</exception>
    public static string Render(ServedModel model, Func<ChatTemplate, string> render)
    {
        var template = model.Tokenizer.ChatTemplate ?? throw new InvalidFieldException("messages", $"model {model.Name} has no chat template: use completions");
        try
        {
            return render(template);
        }
        catch (RhoException exception) when (exception is not InvalidFieldException)
        {
            throw new InvalidFieldException("messages", exception.Message);
        }
    }
}

using System.Text;
using Rho.Jinja;

namespace Rho.Serving.Models;

/// <summary>Texts to tokens, refusing first what cannot fit.</summary>
internal static class Prompts
{
    /// <summary>Encodes a text. What is too long for the context, or for the queue, is refused by its size, before it is encoded.</summary>
    public static int[] Encode(ServedModel model, string text, bool addSpecialTokens, string client)
    {
        var bytes = Encoding.UTF8.GetByteCount(text);
        var atLeast = (bytes + model.LongestToken - 1) / model.LongestToken;
        if (atLeast > model.Engine.ContextLength)
            throw new ContextLengthException($"the prompt has {bytes} bytes, which are {atLeast} tokens or more: beyond the context of {model.Engine.ContextLength} tokens");
        model.Engine.CheckRoom(atLeast, client);
        return model.Tokenizer.Encode(text, addSpecialTokens);
    }

    /// <summary>Renders a conversation with the model's template and encodes it. The template writes what begins a text itself.</summary>
    /// <exception cref="InvalidFieldException">The model has no chat template, or the template refuses the conversation.</exception>
    public static int[] EncodeChat(ServedModel model, Func<ChatTemplate, string> render, string client)
    {
        var template = model.Tokenizer.ChatTemplate ?? throw new InvalidFieldException("messages", $"model {model.Name} has no chat template: use completions");
        string text;
        try
        {
            text = render(template);
        }
        catch (RhoException exception)
        {
            throw new InvalidFieldException("messages", exception.Message);
        }

        return Encode(model, text, addSpecialTokens: false, client);
    }
}

using System.Text;
using Rho.Serving.Engine;

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
}

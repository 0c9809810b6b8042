namespace Rho.Tokenization;

/// <summary>
/// Turns ids into text as they come. What Append and Flush return, put together, is what Decode gives for all ids; a
/// character is held back until all of its bytes are there. For one thread.
/// </summary>
public sealed class StreamingDecoder
{
    private readonly Tokenizer _tokenizer;
    private readonly bool _skipSpecialTokens;
    private DecoderOutput _output;
    private DecoderState _chain;

    internal StreamingDecoder(Tokenizer tokenizer, bool skipSpecialTokens)
    {
        _tokenizer = tokenizer;
        _skipSpecialTokens = skipSpecialTokens;
        (_chain, _output) = tokenizer.StartDecoding();
    }

    /// <summary>The characters that this id completes; often none.</summary>
    public string Append(int id)
    {
        _tokenizer.Push(_chain, id, _skipSpecialTokens);
        return _output.Take();
    }

    /// <summary>What is left, with U+FFFD for bytes that make no character. Afterwards the decoder starts anew.</summary>
    public string Flush()
    {
        _chain.Finish();
        var rest = _output.Take();
        (_chain, _output) = _tokenizer.StartDecoding();
        return rest;
    }
}

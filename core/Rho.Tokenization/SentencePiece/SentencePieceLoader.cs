namespace Rho.Tokenization;

/// <summary>Makes a tokenizer out of a tokenizer.model.</summary>
internal static class SentencePieceLoader
{
    public static TokenizerParts Read(byte[] data, string name, TokenizerSettings settings)
    {
        var file = SentencePieceFile.Read(data, name);
        var vocabulary = new Vocabulary();
        for (var id = 0; id < file.Pieces.Count; id++)
        {
            if (!vocabulary.TryAdd(file.Pieces[id].Text, id)) throw new RhoException($"{name}: piece \"{file.Pieces[id].Text}\" occurs twice");
        }

        var userDefined = new PrefixMatcher(file.Pieces.Where(piece => piece.Type == PieceType.UserDefined).Select(piece => piece.Text));

        // transformers' tokenizers around SentencePiece look for added tokens in the raw text.
        var added = settings.AddedTokens.Select(token => token with { Normalized = false }).ToArray();
        return new TokenizerParts
        {
            Model = file.IsBpe ? new SentencePieceBpe(file, vocabulary, userDefined, name) : new UnigramModel(file, vocabulary),
            Normalizers = [new SentencePieceNormalizer(file, userDefined, name)],
            AddedTokens = added,
            Decoders = [new SentencePieceDecoder(file, vocabulary, added.Select(token => token.Content).ToHashSet(StringComparer.Ordinal))],
            SentencePiece = data,
            Names = new TokenNames(Control(file.BosPiece), Control(file.EosPiece), Control(file.PadPiece), file.UnknownPiece),
        };

        string? Control(string name) => vocabulary.TryGet(name, out var id) && file.Pieces[id].Type == PieceType.Control ? name : null;
    }
}

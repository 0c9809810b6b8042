namespace Rho.Tokenization;

internal enum PieceType
{
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

internal readonly record struct VocabularyPiece(string Text, float Score, PieceType Type);

/// <summary>What a tokenizer.model says that decides about ids and text (sentencepiece_model.proto).</summary>
internal sealed record SentencePieceFile
{
    public List<VocabularyPiece> Pieces { get; } = [];

    public bool IsBpe { get; private set; }

    public bool ByteFallback { get; private set; }

    public bool BlankAsSuffix { get; private set; }

    public string UnknownPiece { get; private set; } = "<unk>";

    public string BosPiece { get; private set; } = "<s>";

    public string EosPiece { get; private set; } = "</s>";

    public string PadPiece { get; private set; } = "<pad>";

    public string UnknownSurface { get; private set; } = " \u2047 ";

    public byte[] CharacterMap { get; private set; } = [];

    public bool AddDummyPrefix { get; private set; } = true;

    public bool RemoveExtraBlanks { get; private set; } = true;

    public bool EscapeBlanks { get; private set; } = true;

    /// <exception cref="RhoException">The file is damaged, or of a kind that is not supported.</exception>
    public static SentencePieceFile Read(ReadOnlySpan<byte> data, string name)
    {
        var file = new SentencePieceFile();
        var reader = new ProtobufReader(data, name);
        while (reader.Next())
        {
            switch (reader.Field)
            {
                case 1:
                    file.Pieces.Add(ReadPiece(reader.Bytes(), name));
                    break;
                case 2:
                    file.ReadTrainer(reader.Bytes(), name);
                    break;
                case 3:
                    file.ReadNormalizer(reader.Bytes(), name);
                    break;
                case 5:
                    if (HasCharacterMap(reader.Bytes(), name)) throw new RhoException($"{name}: denormalizer_spec is not supported");
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }

        file.Check(name);
        return file;
    }

    private void Check(string name)
    {
        if (Pieces.Count == 0) throw new RhoException($"{name}: not a SentencePiece model: no pieces in it");
        if (Pieces.Count >= 1 << 24) throw new RhoException($"{name}: {Pieces.Count} pieces are too many");
        if (Pieces.Count(piece => piece.Type == PieceType.Unknown) != 1) throw new RhoException($"{name}: one piece has to be the unknown one");
        if (!ByteFallback) return;
        var bytes = Pieces.Where(piece => piece.Type == PieceType.Byte).Select(piece => piece.Text).ToHashSet(StringComparer.Ordinal);
        for (var b = 0; b < 256; b++)
        {
            if (!bytes.Contains($"<0x{b:X2}>")) throw new RhoException($"{name}: byte_fallback is on, but piece <0x{b:X2}> is missing");
        }
    }

    private static VocabularyPiece ReadPiece(ReadOnlySpan<byte> data, string name)
    {
        var text = "";
        var score = 0f;
        var type = PieceType.Normal;
        var reader = new ProtobufReader(data, name);
        while (reader.Next())
        {
            switch (reader.Field)
            {
                case 1:
                    text = reader.Text();
                    break;
                case 2:
                    score = reader.Float();
                    break;
                case 3:
                    type = (PieceType)reader.Int32();
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }

        if (text.Length == 0) throw new RhoException($"{name}: a piece is empty");
        if (type is < PieceType.Normal or > PieceType.Byte) throw new RhoException($"{name}: piece \"{text}\" has type {(int)type}, which is not supported");
        if (!float.IsFinite(score)) throw new RhoException($"{name}: piece \"{text}\" has score {score}");
        return new VocabularyPiece(text, score, type);
    }

    private void ReadTrainer(ReadOnlySpan<byte> data, string name)
    {
        var reader = new ProtobufReader(data, name);
        while (reader.Next())
        {
            switch (reader.Field)
            {
                case 3:
                    IsBpe = reader.Int32() switch
                    {
                        1 => false,
                        2 => true,
                        3 => throw new RhoException($"{name}: model type WORD is not supported"),
                        4 => throw new RhoException($"{name}: model type CHAR is not supported"),
                        var other => throw new RhoException($"{name}: model type {other} is not supported"),
                    };
                    break;
                case 24:
                    BlankAsSuffix = reader.Flag();
                    break;
                case 35:
                    ByteFallback = reader.Flag();
                    break;
                case 44:
                    UnknownSurface = reader.Text();
                    break;
                case 45:
                    UnknownPiece = reader.Text();
                    break;
                case 46:
                    BosPiece = reader.Text();
                    break;
                case 47:
                    EosPiece = reader.Text();
                    break;
                case 48:
                    PadPiece = reader.Text();
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }
    }

    private void ReadNormalizer(ReadOnlySpan<byte> data, string name)
    {
        var reader = new ProtobufReader(data, name);
        while (reader.Next())
        {
            switch (reader.Field)
            {
                case 2:
                    CharacterMap = reader.Bytes().ToArray();
                    break;
                case 3:
                    AddDummyPrefix = reader.Flag();
                    break;
                case 4:
                    RemoveExtraBlanks = reader.Flag();
                    break;
                case 5:
                    EscapeBlanks = reader.Flag();
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }
    }

    private static bool HasCharacterMap(ReadOnlySpan<byte> data, string name)
    {
        var reader = new ProtobufReader(data, name);
        while (reader.Next())
        {
            if (reader.Field == 2 && reader.Bytes().Length > 0) return true;
            if (reader.Field != 2) reader.Skip();
        }

        return false;
    }
}

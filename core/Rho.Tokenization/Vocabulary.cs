namespace Rho.Tokenization;

/// <summary>Tokens by id and ids by token. Ids may have gaps.</summary>
internal sealed class Vocabulary
{
    private readonly Dictionary<string, int> _ids = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _bySpan;
    private string?[] _tokens = [];

    public Vocabulary() => _bySpan = _ids.GetAlternateLookup<ReadOnlySpan<char>>();

    /// <summary>1 + the highest id.</summary>
    public int Size { get; private set; }

    public int Count => _ids.Count;

    public string? this[int id] => (uint)id < (uint)Size ? _tokens[id] : null;

    /// <summary>Adds a token; false when the token or the id is taken.</summary>
    public bool TryAdd(string token, int id)
    {
        if (this[id] is not null || !_ids.TryAdd(token, id)) return false;
        if (id >= _tokens.Length) Array.Resize(ref _tokens, Math.Max(id + 1, _tokens.Length * 2));
        _tokens[id] = token;
        Size = Math.Max(Size, id + 1);
        return true;
    }

    public bool TryGet(string token, out int id) => _ids.TryGetValue(token, out id);

    public bool TryGet(ReadOnlySpan<char> token, out int id) => _bySpan.TryGetValue(token, out id);

    public IEnumerable<(int Id, string Token)> ById()
    {
        for (var id = 0; id < Size; id++)
        {
            if (_tokens[id] is { } token) yield return (id, token);
        }
    }
}

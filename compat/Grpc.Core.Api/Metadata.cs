using System.Collections;
using System.Text;
using Grpc.Core.Utils;

namespace Grpc.Core;

/// <summary>Headers or trailers of a call, in order; a key may occur more than once.</summary>
public sealed class Metadata : IList<Metadata.Entry>
{
    /// <summary>What the keys of binary values end in.</summary>
    public const string BinaryHeaderSuffix = "-bin";

    /// <summary>No entries, and read-only.</summary>
    public static readonly Metadata Empty = new() { IsReadOnly = true };

    private readonly List<Entry> _entries = [];

    /// <inheritdoc/>
    public int Count => _entries.Count;

    /// <inheritdoc/>
    public bool IsReadOnly { get; private init; }

    /// <inheritdoc/>
    public Entry this[int index]
    {
        get => _entries[index];
        set => Writable()[index] = NotNull(value);
    }

    /// <summary>The last entry under a key, whatever the key's case; null when there is none.</summary>
    public Entry? Get(string key) => _entries.FindLast(entry => entry.HasKey(key));

    /// <summary>The text of the last entry under a key; null when there is none.</summary>
    public string? GetValue(string key) => Get(key)?.Value;

    /// <summary>The bytes of the last entry under a key; null when there is none.</summary>
    public byte[]? GetValueBytes(string key) => Get(key)?.ValueBytes;

    /// <summary>All entries under a key, in order.</summary>
    public IEnumerable<Entry> GetAll(string key) => _entries.Where(entry => entry.HasKey(key));

    /// <summary>Adds a text entry.</summary>
    public void Add(string key, string value) => Add(new Entry(key, value));

    /// <summary>Adds a binary entry; the key ends in <see cref="BinaryHeaderSuffix"/>.</summary>
    public void Add(string key, byte[] valueBytes) => Add(new Entry(key, valueBytes));

    /// <inheritdoc/>
    public void Add(Entry item) => Writable().Add(NotNull(item));

    /// <inheritdoc/>
    public void Insert(int index, Entry item) => Writable().Insert(index, NotNull(item));

    /// <inheritdoc/>
    public bool Remove(Entry item) => Writable().Remove(item);

    /// <inheritdoc/>
    public void RemoveAt(int index) => Writable().RemoveAt(index);

    /// <inheritdoc/>
    public void Clear() => Writable().Clear();

    /// <inheritdoc/>
    public bool Contains(Entry item) => _entries.Contains(item);

    /// <inheritdoc/>
    public int IndexOf(Entry item) => _entries.IndexOf(item);

    /// <inheritdoc/>
    public void CopyTo(Entry[] array, int arrayIndex) => _entries.CopyTo(array, arrayIndex);

    /// <inheritdoc/>
    public IEnumerator<Entry> GetEnumerator() => _entries.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    private List<Entry> Writable()
    {
        GrpcPreconditions.CheckState(!IsReadOnly, "Object is read only");
        return _entries;
    }

    private static Entry NotNull(Entry item) => GrpcPreconditions.CheckNotNull(item, nameof(item));

    /// <summary>One key with its value, text or binary.</summary>
    public class Entry
    {
        private readonly string? _text;
        private readonly byte[]? _bytes;

        /// <summary>A binary entry. The bytes are copied. Throws <see cref="ArgumentException"/> when the key is not valid or lacks the suffix.</summary>
        public Entry(string key, byte[] valueBytes)
        {
            Key = Normalize(key);
            GrpcPreconditions.CheckArgument(HasBinarySuffix, $"Key for binary valued metadata entry needs to have '{BinaryHeaderSuffix}' suffix indicating binary value.");
            _bytes = [.. GrpcPreconditions.CheckNotNull(valueBytes, nameof(valueBytes))];
        }

        /// <summary>A text entry. Throws <see cref="ArgumentException"/> when the key is not valid or has the suffix of binary values.</summary>
        public Entry(string key, string value)
        {
            Key = Normalize(key);
            GrpcPreconditions.CheckArgument(!HasBinarySuffix, "Key for ASCII valued metadata entry cannot have suffix indicating binary value.");
            _text = GrpcPreconditions.CheckNotNull(value, nameof(value));
        }

        /// <summary>The key, in lower case.</summary>
        public string Key { get; }

        /// <summary>A copy of the bytes; of a text entry, its ASCII encoding.</summary>
        public byte[] ValueBytes => _text is null ? [.. _bytes!] : Encoding.ASCII.GetBytes(_text);

        /// <summary>The text; throws <see cref="InvalidOperationException"/> for a binary entry.</summary>
        public string Value => _text ?? throw new InvalidOperationException("Cannot access string value of a binary metadata entry");

        /// <summary>Whether the value is binary.</summary>
        public bool IsBinary => _text is null;

        /// <inheritdoc/>
        public override string ToString() => IsBinary ? $"[Entry: key={Key}, valueBytes={_bytes}]" : $"[Entry: key={Key}, value={_text}]";

        internal bool HasKey(string key) => string.Equals(Key, key, StringComparison.OrdinalIgnoreCase);

        private bool HasBinarySuffix => Key.EndsWith(BinaryHeaderSuffix, StringComparison.Ordinal);

        private static string Normalize(string key)
        {
            GrpcPreconditions.CheckNotNull(key, nameof(key));
            GrpcPreconditions.CheckArgument(
                key.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-'),
                "Metadata entry key not valid. Keys can only contain lowercase alphanumeric characters, underscores, hyphens and dots.");
            return key.ToLowerInvariant();
        }
    }
}

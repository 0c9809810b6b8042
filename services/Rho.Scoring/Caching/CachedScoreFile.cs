using System.Runtime.InteropServices;
using Rho.Formats;

namespace Rho.Scoring.Caching;

/// <summary>
/// A finished shard in a cache folder: a score file as <see cref="ScoreFile"/> reads it, with one checksum per chunk (tensor
/// <c>chunk_checksums</c>, U64).
/// </summary>
internal static class CachedScoreFile
{
    private const string Checksums = "chunk_checksums";

    /// <summary>The payload of a chunk, or null where it is damaged.</summary>
    public static byte[]? Read(SafetensorsFile file, ScoreKey key, int chunk)
    {
        var payload = new byte[key.PayloadBytes(chunk)];
        var at = 0;
        var tokens = key.Grid.TokensIn(chunk);
        foreach (var column in key.Format.Columns)
        {
            var bytes = tokens * column.BytesPerToken;
            file.Bytes(column.Name, key.Grid.FirstToken(chunk) * column.BytesPerToken, bytes).CopyTo(payload.AsSpan(at));
            at += bytes;
        }

        var stored = MemoryMarshal.Read<ulong>(file.Bytes(Checksums, (long)chunk * sizeof(ulong), sizeof(ulong)));
        return stored == key.Checksum(chunk, payload) ? payload : null;
    }

    /// <summary>Opens the file of a key, or null where there is none or it is not a whole file of that key.</summary>
    public static SafetensorsFile? TryOpen(string path, ScoreKey key, out bool damaged)
    {
        damaged = false;
        SafetensorsFile file;
        try
        {
            file = SafetensorsFile.Open(path);
        }
        catch (NotFoundException)
        {
            return null;
        }
        catch (RhoException)
        {
            damaged = true;
            return null;
        }

        var fits = Tensors(key).All(wanted => file.Tensors.TryGetValue(wanted.Name, out var found)
            && found.Type == wanted.Type && found.Shape.AsSpan().SequenceEqual(wanted.Shape));
        if (fits) return file;
        file.Dispose();
        damaged = true;
        return null;
    }

    /// <summary>Writes the file of a key from the payloads of its chunks; it appears whole.</summary>
    public static void Write(string path, ScoreKey key, Func<int, byte[]> payloadOf)
    {
        var metadata = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["format"] = "rho.scores.v1",
            ["reference"] = key.Reference,
            ["shard_sha256"] = key.Shard,
            ["layout_sha256"] = key.Layout,
            ["encoding"] = LossCodec.Name(key.Format.Encoding),
        };
        using var writer = SafetensorsWriter.Create(path, Tensors(key), metadata);
        for (var chunk = 0; chunk < key.Grid.Chunks; chunk++)
        {
            var payload = payloadOf(chunk);
            var tokens = key.Grid.TokensIn(chunk);
            var at = 0;
            foreach (var column in key.Format.Columns)
            {
                var bytes = tokens * column.BytesPerToken;
                writer.Write(column.Name, key.Grid.FirstToken(chunk) * column.BytesPerToken, payload.AsSpan(at, bytes));
                at += bytes;
            }

            var checksum = key.Checksum(chunk, payload);
            writer.Write(Checksums, (long)chunk * sizeof(ulong), MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(ref checksum)));
        }

        writer.Complete();
    }

    private static IEnumerable<(string Name, ElementType Type, long[] Shape)> Tensors(ScoreKey key) =>
        key.Format.Columns.Select(column => (column.Name, column.Type, column.Shape(key.Grid.Sequences, key.Grid.Length))).Append((Checksums, ElementType.U64, [key.Grid.Chunks]));
}

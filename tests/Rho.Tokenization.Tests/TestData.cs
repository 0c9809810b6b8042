using System.IO.Compression;
using System.Text.Json;

namespace Rho.Tokenization.Tests;

/// <summary>What the scripts in Data recorded.</summary>
internal static class TestData
{
    public static readonly string Folder = Path.Combine(AppContext.BaseDirectory, "Data");

    public static readonly string[] Texts = JsonSerializer.Deserialize<string[]>(File.ReadAllText(Path.Combine(Folder, "texts.json")))!;

    public static JsonElement ReadCompressed(params string[] path)
    {
        using var stream = new GZipStream(File.OpenRead(Path.Combine([Folder, .. path])), CompressionMode.Decompress);
        using var document = JsonDocument.Parse(stream);
        return document.RootElement.Clone();
    }

    public static int[] Ids(JsonElement element) => [.. element.EnumerateArray().Select(id => id.GetInt32())];

    public static string Show(string text) => JsonSerializer.Serialize(text.Length > 200 ? text[..200] + "..." : text);
}

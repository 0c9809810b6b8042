using System.IO.Compression;
using System.Text.Json;

namespace Rho.Tokenization.Tests;

/// <summary>What the scripts in Data recorded.</summary>
internal static class Recorded
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

internal static class Cases
{
    /// <summary>Checks what was recorded for each text, and tells which texts differ.</summary>
    public static void Compare(JsonElement cases, Action<string, JsonElement> check)
    {
        var failures = new List<string>();
        Assert.Equal(Recorded.Texts.Length, cases.GetArrayLength());
        for (var i = 0; i < Recorded.Texts.Length; i++)
        {
            try
            {
                check(Recorded.Texts[i], cases[i]);
            }
            catch (Xunit.Sdk.XunitException error)
            {
                failures.Add($"text {i} {Recorded.Show(Recorded.Texts[i])}: {error.Message}");
            }
        }

        if (failures.Count > 0) Assert.Fail($"{failures.Count} of {Recorded.Texts.Length} texts differ.\n{string.Join('\n', failures.Take(3))}");
    }
}

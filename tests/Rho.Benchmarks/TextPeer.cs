using System.Diagnostics;
using System.Text.Json;

namespace Rho.Benchmarks;

/// <summary>sentencepiece_peer.py, where Python has SentencePiece.</summary>
internal sealed class TextPeer
{
    private static readonly string Script = Path.Combine(AppContext.BaseDirectory, "sentencepiece_peer.py");

    private readonly string _python;

    private TextPeer(string python) => _python = python;

    /// <summary>The peer, or null where this Python lacks SentencePiece.</summary>
    public static TextPeer? Find(string python)
    {
        var start = new ProcessStartInfo(python, ["-c", "import sentencepiece"]) { RedirectStandardError = true, UseShellExecute = false };
        try
        {
            using var process = Process.Start(start)!;
            process.StandardError.ReadToEnd();
            process.WaitForExit();
            if (process.ExitCode == 0) return new TextPeer(python);
        }
        catch (System.ComponentModel.Win32Exception)
        {
            // No such program; said below.
        }

        Console.Error.WriteLine($"rho: {python} has no SentencePiece (Debian: python3-sentencepiece); measured without it");
        return null;
    }

    public JsonElement Run(params IEnumerable<string> arguments) => Measuring.RunForJson(_python, [Script, .. arguments]);
}

using System.Buffers.Binary;
using System.Diagnostics;
using System.Reflection.PortableExecutable;
using System.Text;

namespace Rho.EndToEnd.Tests;

/// <summary>What <c>dotnet publish -r</c> gives for each system: every native that is needed there, and none of another.</summary>
[Trait("Category", "Slow")]
public sealed class PublishTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(20);

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("linux-x64", "rho", "libtorch_cpu.so", "libc10.so", "libtorch.so", "libLibTorchSharp.so")]
    [InlineData("win-x64", "rho.exe", "torch_cpu.dll", "c10.dll", "torch.dll", "LibTorchSharp.dll")]
    [InlineData("osx-arm64", "rho", "libtorch_cpu.dylib", "libc10.dylib", "libtorch.dylib", "libLibTorchSharp.dylib")]
    public async Task Publish_ForASystem_IsWholeAndOfThatSystemAlone(string runtime, params string[] expected)
    {
        var program = _folder["program"];
        await PublishAsync(runtime, program);

        var files = Directory.EnumerateFiles(program, "*", SearchOption.AllDirectories).ToList();
        var names = files.Select(path => Path.GetFileName(path)).ToHashSet(StringComparer.OrdinalIgnoreCase);
        Assert.All((string[])[.. expected, "rho.dll", "rho.deps.json", "rho.runtimeconfig.json", "TorchSharp.dll"], name => Assert.Contains(name, names));
        Assert.InRange(files.Sum(path => new FileInfo(path).Length), 0, 456L << 20);

        foreach (var path in files)
        {
            var (system, imports) = Native.Read(path);
            if (system is null) continue;
            Assert.True(runtime.StartsWith(system, StringComparison.Ordinal), $"{Path.GetFileName(path)} is for {system}, in a program for {runtime}");
            foreach (var import in imports) Assert.True(names.Contains(import) || Native.IsOfTheSystem(import), $"{Path.GetFileName(path)} needs {import}, which is not there");
        }
    }

    private async Task PublishAsync(string runtime, string output)
    {
        // A build of its own: restoring for another system would change what ./rho has built.
        string[] arguments = ["publish", Path.Combine(Repository.Root, "clients", "Rho.Cli"), "-c", "Release", "-r", runtime, "--no-self-contained", "--artifacts-path", _folder["build"], "-o", output, "-v", "quiet", "--nologo"];
        var start = new ProcessStartInfo("dotnet", arguments) { RedirectStandardOutput = true, UseShellExecute = false, Environment = { ["MSBUILDDISABLENODEREUSE"] = "1", ["DOTNET_CLI_TELEMETRY_OPTOUT"] = "1" } };
        using var process = Process.Start(start)!;
        using var patience = new CancellationTokenSource(s_patience);
        try
        {
            var said = await process.StandardOutput.ReadToEndAsync(patience.Token);
            await process.WaitForExitAsync(patience.Token);
            Assert.SkipWhen(said.Contains("NU1101", StringComparison.Ordinal) || said.Contains("NU1301", StringComparison.Ordinal), $"the packages of {runtime} are not to be had: {said}");
            Assert.True(process.ExitCode == 0, said);
        }
        finally
        {
            if (!process.HasExited) process.Kill(entireProcessTree: true);
        }
    }

    /// <summary>Reads which system an executable file is for, and the names of the libraries that it asks for.</summary>
    private static class Native
    {
        /// <summary>What Windows, its C++ runtime or macOS has. A Linux program's imports are seen by running it.</summary>
        public static bool IsOfTheSystem(string import) =>
            import.StartsWith("/usr/lib/", StringComparison.Ordinal) || import.StartsWith("/System/Library/", StringComparison.Ordinal)
            || import.StartsWith("api-ms-win-", StringComparison.OrdinalIgnoreCase) || s_windows.Contains(import);

        private static readonly HashSet<string> s_windows = new(StringComparer.OrdinalIgnoreCase)
        {
            "KERNEL32.dll", "ADVAPI32.dll", "USER32.dll", "SHELL32.dll", "USERENV.dll", "IPHLPAPI.DLL", "PSAPI.DLL", "WS2_32.dll", "ole32.dll", "dbghelp.dll", "imagehlp.dll", "WINTRUST.dll",
            "MSVCP140.dll", "VCRUNTIME140.dll", "VCRUNTIME140_1.dll",
        };

        public static (string? System, IReadOnlyList<string> Imports) Read(string path)
        {
            using var file = File.OpenRead(path);
            var start = new byte[Math.Min(file.Length, 1 << 16)];
            file.ReadExactly(start);
            if (start.AsSpan().StartsWith("\u007FELF"u8)) return ("linux", []);
            if (start.Length > 32 && BinaryPrimitives.ReadUInt32LittleEndian(start) == 0xFEEDFACF) return ("osx", MachO(start));
            if (start.AsSpan().StartsWith<byte>([0xCA, 0xFE, 0xBA, 0xBE])) return ("osx", []);   // for several processors
            if (!start.AsSpan().StartsWith("MZ"u8)) return (null, []);
            file.Position = 0;
            using var reader = new PEReader(file);
            return reader.HasMetadata ? (null, []) : ("win", Pe(reader));
        }

        /// <summary>The import table: entries of 20 bytes, of which bytes 12 to 15 say where the name is.</summary>
        private static List<string> Pe(PEReader reader)
        {
            var names = new List<string>();
            var table = reader.GetSectionData(reader.PEHeaders.PEHeader!.ImportTableDirectory.RelativeVirtualAddress).GetReader();
            while (true)
            {
                table.Offset += 12;
                var name = table.ReadInt32();
                table.Offset += 4;
                if (name == 0) return names;
                var text = reader.GetSectionData(name).GetReader();
                names.Add(text.ReadUTF8(text.IndexOf(0)));
            }
        }

        /// <summary>Load commands of a 64-bit Mach-O file: LC_LOAD_DYLIB, _WEAK_DYLIB and _REEXPORT_DYLIB; @rpath is the folder.</summary>
        private static List<string> MachO(ReadOnlySpan<byte> file)
        {
            var names = new List<string>();
            var at = 32;
            for (var count = BinaryPrimitives.ReadInt32LittleEndian(file[16..]); count > 0; count--)
            {
                var command = BinaryPrimitives.ReadUInt32LittleEndian(file[at..]);
                var size = BinaryPrimitives.ReadInt32LittleEndian(file[(at + 4)..]);
                if (command is 0xC or 0x80000018 or 0x8000001F)
                {
                    var text = file[(at + BinaryPrimitives.ReadInt32LittleEndian(file[(at + 8)..]))..(at + size)];
                    var name = Encoding.UTF8.GetString(text[..text.IndexOf((byte)0)]);
                    // Homebrew's path is the bundled libomp's own name: LibTorch loads that one first.
                    names.Add(name.StartsWith('@') || name.StartsWith("/opt/homebrew/opt/libomp/", StringComparison.Ordinal) ? Path.GetFileName(name) : name);
                }

                at += size;
            }

            return names;
        }
    }
}

#nullable enable
using System;
using System.Collections.Generic;
using System.IO;
using System.Text;

namespace Rho.Torch;

/// <summary>One version of a library that an ELF file needs, as the section .gnu.version_r lists it.</summary>
public sealed class ElfVersionNeed
{
    internal ElfVersionNeed(string library, string version, bool isWeak, long flagsOffset)
    {
        Library = library;
        Version = version;
        IsWeak = isWeak;
        FlagsOffset = flagsOffset;
    }

    /// <summary>The library's name, such as libstdc++.so.6.</summary>
    public string Library { get; }

    /// <summary>The version's name, such as GLIBCXX_3.4.32.</summary>
    public string Version { get; }

    /// <summary>Whether the dynamic linker loads the file also where the library lacks the version (VER_FLG_WEAK).</summary>
    public bool IsWeak { get; }

    /// <summary>Where in the file the entry's flags lie, in bytes.</summary>
    internal long FlagsOffset { get; }
}

/// <summary>
/// The symbol versions that a 64-bit little-endian ELF file needs, and a copy of such a file with one of them marked weak. The dynamic linker
/// refuses a file that needs a version its libraries lack, even where no relocation uses a symbol of it; where the entry is weak it loads the file.
/// Layout: ELF-64 object file format and the Linux Standard Base, "Symbol Versioning".
/// </summary>
/// <remarks>The build compiles this file by itself, as a task for netstandard2.0, so it stands alone and keeps to what that has.</remarks>
public static class ElfVersionNeeds
{
    private const int VersionNeedsSection = 0x6ffffffe;   // SHT_GNU_verneed
    private const ushort Weak = 0x2;                      // VER_FLG_WEAK

    /// <summary>Every version that the file needs.</summary>
    /// <exception cref="InvalidDataException">The file is no 64-bit little-endian ELF file, or its tables point outside it.</exception>
    public static IReadOnlyList<ElfVersionNeed> Read(string path) => Read(File.ReadAllBytes(path), path);

    /// <summary>Writes a copy of the file in which the named version is weak; the copy appears whole or not at all.</summary>
    /// <exception cref="InvalidDataException">The file does not need that version, or is no 64-bit little-endian ELF file.</exception>
    public static void WriteWithWeak(string source, string version, string destination)
    {
        var file = File.ReadAllBytes(source);
        var found = false;
        foreach (var need in Read(file, source))
        {
            if (need.Version != version) continue;
            found = true;
            file[need.FlagsOffset] |= (byte)Weak;
        }

        if (!found) throw new InvalidDataException($"{source} does not need {version}");
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(destination))!);
        var partial = destination + ".partial";
        File.WriteAllBytes(partial, file);
        if (File.Exists(destination)) File.Delete(destination);
        File.Move(partial, destination);
    }

    private static List<ElfVersionNeed> Read(byte[] file, string path)
    {
        try
        {
            if (file.Length < 64 || file[0] != 0x7f || file[1] != 'E' || file[2] != 'L' || file[3] != 'F' || file[4] != 2 || file[5] != 1)
                throw new InvalidDataException($"{path} is no 64-bit little-endian ELF file");

            var needs = new List<ElfVersionNeed>();
            var sections = ToOffset(BitConverter.ToUInt64(file, 0x28));
            int sectionSize = BitConverter.ToUInt16(file, 0x3a), sectionCount = BitConverter.ToUInt16(file, 0x3c);
            for (var i = 0; i < sectionCount; i++)
            {
                var section = sections + i * sectionSize;
                if (BitConverter.ToUInt32(file, section + 4) != VersionNeedsSection) continue;
                var names = sections + BitConverter.ToInt32(file, section + 40) * sectionSize;   // sh_link: the string table
                ReadSection(file, ToOffset(BitConverter.ToUInt64(file, section + 24)), BitConverter.ToInt32(file, section + 44), ToOffset(BitConverter.ToUInt64(file, names + 24)), needs);
            }

            return needs;
        }
        catch (Exception exception) when (exception is ArgumentException or IndexOutOfRangeException or OverflowException)
        {
            throw new InvalidDataException($"{path} is a damaged ELF file: a table points outside it", exception);
        }
    }

    /// <summary>A section's entries: for each library a header, and from it a chain of versions. All offsets are relative.</summary>
    private static void ReadSection(byte[] file, int library, int libraryCount, int names, List<ElfVersionNeed> needs)
    {
        for (; libraryCount > 0; libraryCount--)
        {
            var libraryName = ReadName(file, names + BitConverter.ToInt32(file, library + 4));
            var version = library + BitConverter.ToInt32(file, library + 8);
            for (int versionCount = BitConverter.ToUInt16(file, library + 2); versionCount > 0; versionCount--)
            {
                var flags = version + 4;
                needs.Add(new ElfVersionNeed(libraryName, ReadName(file, names + BitConverter.ToInt32(file, version + 8)), (BitConverter.ToUInt16(file, flags) & Weak) != 0, flags));
                version += BitConverter.ToInt32(file, version + 12);
            }

            library += BitConverter.ToInt32(file, library + 12);
        }
    }

    private static string ReadName(byte[] file, int start) => Encoding.ASCII.GetString(file, start, Array.IndexOf(file, (byte)0, start) - start);

    private static int ToOffset(ulong offset) => checked((int)offset);
}

#if !NET
/// <summary>The build's task: <see cref="ElfVersionNeeds.WriteWithWeak"/>.</summary>
public sealed class MarkVersionWeak : Microsoft.Build.Utilities.Task
{
    [Microsoft.Build.Framework.Required]
    public string Source { get; set; } = "";

    [Microsoft.Build.Framework.Required]
    public string Version { get; set; } = "";

    [Microsoft.Build.Framework.Required]
    public string Destination { get; set; } = "";

    public override bool Execute()
    {
        try
        {
            ElfVersionNeeds.WriteWithWeak(Source, Version, Destination);
        }
        catch (Exception exception) when (exception is InvalidDataException or IOException or UnauthorizedAccessException)
        {
            Log.LogError(exception.Message);
        }

        return !Log.HasLoggedErrors;
    }
}
#endif

using System.Reflection;

namespace Rho.Torch.Tests;

/// <summary>On the file that the package has, and on the copy that the build makes of it.</summary>
public sealed class ElfVersionNeedsTests : IDisposable
{
    private const string Unused = "GLIBCXX_3.4.32";

    private static readonly string s_published = typeof(ElfVersionNeedsTests).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(metadata => metadata.Key == "PublishedTorchSharp").Value!;

    private readonly string _folder = Directory.CreateTempSubdirectory("rho-elf-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Read_PublishedFile_FindsEveryVersionAndNoneIsWeak()
    {
        var needs = ElfVersionNeeds.Read(s_published);
        Assert.Contains(needs, need => need is { Library: "libstdc++.so.6", Version: Unused });
        Assert.Contains(needs, need => need is { Library: "libc.so.6", Version: "GLIBC_2.34" });
        Assert.Contains(needs, need => need is { Library: "libgcc_s.so.1", Version: "GCC_3.0" });
        Assert.Equal(28, needs.Count);
        Assert.DoesNotContain(needs, need => need.IsWeak);
    }

    [Fact]
    public void WriteWithWeak_ChangesOneByteOfTheCopyAndNothingOfTheSource()
    {
        var before = File.ReadAllBytes(s_published);
        var copy = Path.Combine(_folder, "copy.so");
        ElfVersionNeeds.WriteWithWeak(s_published, Unused, copy);

        var after = File.ReadAllBytes(copy);
        Assert.Equal(before.Length, after.Length);
        Assert.Equal(1, before.Zip(after).Count(pair => pair.First != pair.Second));
        Assert.Equal([Unused], ElfVersionNeeds.Read(copy).Where(need => need.IsWeak).Select(need => need.Version));
        Assert.Equal(before, File.ReadAllBytes(s_published));
        Assert.Equal(["copy.so"], Directory.GetFiles(_folder).Select(Path.GetFileName));
    }

    [Fact]
    public void Build_PutsTheChangedCopyBesideTheProgram() => Assert.Equal([Unused], LibTorch.WeakVersions);

    [Fact]
    public void WriteWithWeak_VersionThatIsNotNeeded_IsRefusedAndWritesNothing()
    {
        var exception = Assert.Throws<InvalidDataException>(() => ElfVersionNeeds.WriteWithWeak(s_published, "GLIBCXX_9.9", Path.Combine(_folder, "copy.so")));
        Assert.Contains("does not need GLIBCXX_9.9", exception.Message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(_folder));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(63)]
    [InlineData(1000)]
    [InlineData(300_000)]
    public void Read_TruncatedFile_IsRefused(int length)
    {
        var path = Path.Combine(_folder, "short.so");
        File.WriteAllBytes(path, File.ReadAllBytes(s_published).AsSpan(0, length));
        Assert.Contains(path, Assert.Throws<InvalidDataException>(() => ElfVersionNeeds.Read(path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Read_TextFile_IsRefused()
    {
        var path = Path.Combine(_folder, "text.so");
        File.WriteAllText(path, new string('a', 200));
        Assert.Contains("no 64-bit little-endian ELF file", Assert.Throws<InvalidDataException>(() => ElfVersionNeeds.Read(path)).Message, StringComparison.Ordinal);
    }
}

namespace Rho.EndToEnd.Tests;

/// <summary>Which libtorch the program takes, and what it says where it finds none that fits.</summary>
[Collection(WorkshopCollection.Name)]
public sealed class LibTorchTests(Workshop workshop) : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Doctor_SaysWhichLibtorchAndFromWhere()
    {
        var output = await RhoProgram.SucceedAsync("doctor");
        Assert.Contains($"2.10.0, 1 threads, from {AppContext.BaseDirectory}", output, StringComparison.Ordinal);
        Assert.Contains("GLIBCXX_3.4.32", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task FolderWithoutLibtorch_IsNamedInOneLine()
    {
        var result = await RunAsync(_folder.Path, "doctor");
        Assert.Equal(1, result.ExitCode);
        Assert.Contains($"libtorch     missing: RHO_LIBTORCH is {_folder.Path}, which has no libtorch_cpu.so", result.Output, StringComparison.Ordinal);
        Assert.Empty(result.Error);
    }

    [Fact]
    public async Task LibraryThatDoesNotLoad_IsNamedWithTheLinkersReason()
    {
        foreach (var name in (string[])["libc10.so", "libtorch_cpu.so", "libtorch.so"]) await File.WriteAllTextAsync(_folder[name], "no library");
        var result = await RunAsync(_folder.Path, "scorer", "--reference", workshop.Reference, "--port", "0");
        Assert.Equal(1, result.ExitCode);
        var line = Assert.Single(result.ErrorLines);
        Assert.StartsWith("rho: libc10.so cannot be loaded: ", line, StringComparison.Ordinal);
        Assert.Contains(_folder.Path, line, StringComparison.Ordinal);
    }

    [Fact]
    public async Task AnotherVersion_IsRefused()
    {
        const string debian = "/usr/lib/x86_64-linux-gnu";
        Assert.SkipUnless(File.Exists($"{debian}/libtorch_cpu.so") && File.Exists($"{debian}/libc10.so"), "needs another libtorch: apt-get install libtorch-dev");
        var result = await RunAsync(debian, "doctor");
        Assert.Contains($"missing: {debian} has libtorch before 2.9; this program needs 2.10", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task CommandsWithoutTensors_NeedNoLibtorch()
    {
        var result = await RunAsync(_folder.Path, "--help");
        Assert.Equal(0, result.ExitCode);
    }

    private static Task<RhoResult> RunAsync(string libtorch, params string[] arguments) =>
        RhoProgram.RunAsync(arguments, new Dictionary<string, string>(StringComparer.Ordinal) { ["RHO_LIBTORCH"] = libtorch });
}

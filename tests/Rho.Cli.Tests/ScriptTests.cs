using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Rho.Cli.Tests;

/// <summary>The script ./rho where it may install nothing.</summary>
public sealed class ScriptTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("rho-script-").FullName;

    public ScriptTests()
    {
        // A copy in an empty folder that a user without rights can build in, and a system that has no package and no sudo.
        File.Copy(Path.Combine(Root(), "rho"), Path.Combine(folder, "rho"));
        Directory.CreateDirectory(Path.Combine(folder, "bin"));
        foreach (var name in (string[])["dpkg-query", "sudo"])
        {
            File.WriteAllText(Path.Combine(folder, "bin", name), "#!/bin/sh\nexit 1\n");
            File.SetUnixFileMode(Path.Combine(folder, "bin", name), ReadableAndExecutable);
        }

        foreach (var path in (string[])[Path.Combine(folder, "bin"), Path.Combine(folder, "rho")]) File.SetUnixFileMode(path, ReadableAndExecutable);
        File.SetUnixFileMode(folder, (UnixFileMode)0b111_111_111);
    }

    private const UnixFileMode ReadableAndExecutable = (UnixFileMode)0b111_101_101;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Theory]
    [InlineData("", "chromium openmpi-bin redis-server")]
    [InlineData("CacheTests", "openmpi-bin redis-server")]
    [InlineData("PageTests.Opens", "chromium redis-server")]
    public async Task Script_PackagesOfTestsMissingAndNotAllowedToInstall_SaysWhatToInstallForThose(string filter, string packages)
    {
        WriteTestProject("Cache", "openmpi-bin redis-server", "public class CacheTests { }");
        // More than fits a pipe, after what is looked for.
        var more = string.Concat(Enumerable.Range(0, 5000).Select(i => $"    public void Shows_{i}() {{ }}\n"));
        WriteTestProject("Page", "chromium redis-server", $"public class PageTests\n{{\n    public void Opens() {{ }}\n{more}}}");
        var (code, error) = await RunAsync("test", filter);
        Assert.Equal(1, code);
        Assert.Contains($"sudo apt-get install --no-install-recommends {packages}\n", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Script_TestsThatNeedNoPackage_AreBuilt()
    {
        WriteTestProject("Cache", "redis-server", "public class CacheTests { }");
        File.WriteAllText(Path.Combine(WriteTestProject("Plain", "", "public class PlainTests { }"), "Plain.Tests.csproj"), "<Project />");
        var (_, error) = await RunAsync("test", "PlainTests");
        Assert.Contains("building Plain.Tests", error, StringComparison.Ordinal);
        Assert.DoesNotContain("apt-get", error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("setup")]
    [InlineData("train")]
    public async Task Script_ToBuildAndRun_AsksForNoPackage(string command)
    {
        // The copy has no sources, so that the build fails: but not for want of a package.
        var (code, error) = await RunAsync(command);
        Assert.Equal(1, code);
        Assert.Contains("building", error, StringComparison.Ordinal);
        Assert.DoesNotContain("apt-get", error, StringComparison.Ordinal);
    }

    private string WriteTestProject(string name, string packages, string code)
    {
        var project = Directory.CreateDirectory(Path.Combine(folder, "tests", $"{name}.Tests")).FullName;
        File.WriteAllText(Path.Combine(project, $"{name}.Tests.csproj"), $"<Project><PropertyGroup>\n<DebianPackages>{packages}</DebianPackages>\n</PropertyGroup></Project>");
        File.WriteAllText(Path.Combine(project, "Tests.cs"), code);
        return project;
    }

    private async Task<(int Code, string Error)> RunAsync(params string[] arguments)
    {
        string[] asNobody = Environment.UserName == "root" ? ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"] : [];
        string[] line = [.. asNobody, "env", $"PATH={folder}/bin:{Environment.GetEnvironmentVariable("PATH")}", Path.Combine(folder, "rho"), .. arguments];
        var start = new ProcessStartInfo(line[0], line[1..]) { RedirectStandardInput = true, RedirectStandardError = true, RedirectStandardOutput = true, UseShellExecute = false };
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        var output = process.StandardOutput.ReadToEndAsync(patience.Token);
        var error = await process.StandardError.ReadToEndAsync(patience.Token);
        await output;
        await process.WaitForExitAsync(patience.Token);
        return (process.ExitCode, error);
    }

    private static string Root([CallerFilePath] string here = "") => Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "..", ".."));
}

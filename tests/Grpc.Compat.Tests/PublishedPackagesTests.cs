using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text.Json;

namespace Grpc.Compat.Tests;

/// <summary>
/// Which packages and projects each project of the repository refers to, by default and with PublishedPackages, as MSBuild evaluates
/// them. The published packages cannot be restored everywhere; that the switch picks them can be seen everywhere.
/// </summary>
public sealed class PublishedPackagesTests(PublishedPackagesTests.Evaluations evaluations) : IClassFixture<PublishedPackagesTests.Evaluations>
{
    private static readonly string[] StoodIn = ["TorchSharp", "Grpc.Core.Api", "Grpc.Net.Common"];

    [Fact]
    public async Task PublishedPackages_NoProjectReachesAStandIn()
    {
        var all = await evaluations.All("-p:PublishedPackages=true");
        Assert.All(all, project => Assert.DoesNotContain(project.Projects, Evaluations.IsCompat));
        Assert.All(all.Where(project => project.Uses("UseTorch")), project => Assert.Contains("TorchSharp-cuda-linux", project.Packages));
        Assert.All(all.Where(project => project.Uses("UseGrpcServer")), project => Assert.Contains("Grpc.AspNetCore", project.Packages));
        Assert.All(all.Where(project => project.Uses("UseGrpcServer")), project => Assert.DoesNotContain("Grpc.AspNetCore.Server", project.Packages));
        Assert.All(all.Where(project => project.Uses("UseGrpcClient")), project => Assert.Contains("Grpc.Net.Client", project.Packages));
        Assert.All(all.Where(project => project.Uses("UseRedis")), project => Assert.Equal("3.4.35", project.Version("StackExchange.Redis")));
        Assert.All(all, project => Assert.Equal("3.36.2", project.Version("Google.Protobuf")));
        AssertVersioned(all);
    }

    [Fact]
    public async Task PublishedPackagesOnCpu_TorchComesWithoutCuda()
    {
        var all = await evaluations.All("-p:PublishedPackages=true -p:Torch=cpu");
        Assert.All(all.Where(project => project.Uses("UseTorch")), project => Assert.Contains("TorchSharp-cpu", project.Packages));
        Assert.All(all, project => Assert.DoesNotContain("TorchSharp-cuda-linux", project.Packages));
        Assert.All(all, project => Assert.DoesNotContain(project.Projects, Evaluations.IsCompat));
    }

    [Fact]
    public async Task Default_StandInsFillIn()
    {
        var all = await evaluations.All("");
        foreach (var project in all)
        {
            var standIns = project.Projects.Where(Evaluations.IsCompat).Select(Path.GetFileNameWithoutExtension).ToList();
            Assert.Equal(standIns.Distinct(), standIns);
            Assert.Equal(project.Uses("UseTorch"), standIns.Contains("TorchSharp"));
            Assert.Equal(project.Uses("UseGrpcServer") || project.Uses("UseGrpcClient"), standIns.Contains("Grpc.Core.Api"));
            Assert.Equal(project.Uses("UseGrpcServer") || project.Uses("UseGrpcClient"), standIns.Contains("Grpc.Net.Common"));
            Assert.Equal(project.Uses("UseGrpcServer"), project.Packages.Contains("Grpc.AspNetCore.Server"));
            Assert.DoesNotContain("Grpc.AspNetCore", project.Packages);
            Assert.DoesNotContain(project.Packages, package => package.StartsWith("TorchSharp", StringComparison.Ordinal) || StoodIn.Contains(package));
            Assert.Equal("3.25.1", project.Version("Google.Protobuf"));
        }

        AssertVersioned(all);
    }

    private static void AssertVersioned(IEnumerable<Evaluation> all) =>
        Assert.All(all, project => Assert.All(project.Packages, package => Assert.NotEqual("none", project.Version(package))));

    /// <summary>What MSBuild says of one project.</summary>
    public sealed record Evaluation(string Path, IReadOnlyDictionary<string, string> Properties, IReadOnlyList<string> Packages, IReadOnlyList<string> Projects, IReadOnlyDictionary<string, string> Versions)
    {
        public bool Uses(string property) => Properties[property] == "true";

        public string Version(string package) => Versions.GetValueOrDefault(package, "none");
    }

    /// <summary>Evaluates the repository's projects, once per set of properties.</summary>
    public sealed class Evaluations
    {
        private static readonly string Root = FindRoot();
        private readonly ConcurrentDictionary<string, Lazy<Task<IReadOnlyList<Evaluation>>>> _all = new(StringComparer.Ordinal);

        public static bool IsCompat(string project) => project.StartsWith(System.IO.Path.Combine(Root, "compat"), StringComparison.Ordinal);

        public Task<IReadOnlyList<Evaluation>> All(string properties) => _all.GetOrAdd(properties, key => new(() => Evaluate(key))).Value;

        private static async Task<IReadOnlyList<Evaluation>> Evaluate(string properties)
        {
            var projects = Directory.EnumerateFiles(Root, "*.csproj", SearchOption.AllDirectories)
                .Where(path => !IsCompat(path) && !System.IO.Path.GetRelativePath(Root, path).Split('/').Any(part => part is "obj" or "bin" || part[0] == '.'))
                .Order(StringComparer.Ordinal)
                .ToList();
            Assert.NotEmpty(projects);
            var results = new Evaluation[projects.Count];
            await Parallel.ForAsync(0, projects.Count, new ParallelOptions { MaxDegreeOfParallelism = 2 }, async (i, _) => results[i] = await Evaluate(projects[i], properties));
            return results;
        }

        private static async Task<Evaluation> Evaluate(string project, string properties)
        {
            var start = new ProcessStartInfo("dotnet", $"msbuild \"{project}\" -nologo {properties} -getItem:PackageReference -getItem:PackageVersion -getItem:ProjectReference -getProperty:UseTorch -getProperty:UseGrpcServer -getProperty:UseGrpcClient -getProperty:UseRedis")
            {
                UseShellExecute = false,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
                WorkingDirectory = Root,
            };
            // The test host hands its own MSBuild on; the child finds the SDK's.
            foreach (var name in start.Environment.Keys.Where(name => name.StartsWith("MSBUILD", StringComparison.OrdinalIgnoreCase)).ToList()) start.Environment.Remove(name);
            using var msbuild = Process.Start(start)!;
            var errors = msbuild.StandardError.ReadToEndAsync();
            var output = await msbuild.StandardOutput.ReadToEndAsync().WaitAsync(TimeSpan.FromMinutes(2));
            Assert.True(output.StartsWith('{'), $"{project}: {output} {await errors}");
            using var json = JsonDocument.Parse(output);
            var items = json.RootElement.GetProperty("Items");
            return new Evaluation(
                project,
                json.RootElement.GetProperty("Properties").EnumerateObject().ToDictionary(property => property.Name, property => property.Value.GetString()!, StringComparer.Ordinal),
                Values("PackageReference", "Identity"),
                Values("ProjectReference", "FullPath"),
                items.GetProperty("PackageVersion").EnumerateArray().ToDictionary(item => item.GetProperty("Identity").GetString()!, item => item.GetProperty("Version").GetString()!, StringComparer.Ordinal));

            List<string> Values(string item, string metadata) => [.. items.GetProperty(item).EnumerateArray().Select(value => value.GetProperty(metadata).GetString()!)];
        }

        private static string FindRoot()
        {
            for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
                if (File.Exists(System.IO.Path.Combine(folder.FullName, "Directory.Packages.props"))) return folder.FullName;
            throw new InvalidOperationException($"no repository above {AppContext.BaseDirectory}");
        }
    }
}

using System.Diagnostics;

namespace TorchSharp.Tests;

/// <summary>
/// The stand-in exposes nothing that the published package lacks. The listing of the published API is no part of the
/// repository: it is looked for in $RHO_API_LISTINGS, then in shared/api beside the repository.
/// </summary>
public sealed class PublishedApiTests
{
    private const string Listing = "torchsharp-0.107.txt";
    private const string Comparer = "public-api.cs";

    [ListingFact]
    public async Task PublicMembers_AreAllPublished()
    {
        var folder = FindListings()!;
        var start = new ProcessStartInfo("dotnet", ["run", Path.Combine(folder, Comparer), typeof(torch).Assembly.Location, Path.Combine(folder, Listing)])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
            WorkingDirectory = folder,
        };
        start.Environment["MSBUILDDISABLENODEREUSE"] = "1";
        using var process = Process.Start(start)!;
        using var timeout = new CancellationTokenSource(TimeSpan.FromMinutes(2));
        try
        {
            var output = process.StandardOutput.ReadToEndAsync(timeout.Token);
            var errors = process.StandardError.ReadToEndAsync(timeout.Token);
            await process.WaitForExitAsync(timeout.Token);
            Assert.True(process.ExitCode == 0, await output + await errors);
        }
        finally
        {
            if (!process.HasExited) process.Kill(entireProcessTree: true);
        }
    }

    private static string? FindListings()
    {
        if (Environment.GetEnvironmentVariable("RHO_API_LISTINGS") is { Length: > 0 } named) return Has(named) ? named : null;
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "Rho.sln"))) folder = folder.Parent;
        if (folder?.Parent is null) return null;
        var beside = Path.Combine(folder.Parent.FullName, "shared", "api");
        return Has(beside) ? beside : null;
    }

    private static bool Has(string folder) => File.Exists(Path.Combine(folder, Listing)) && File.Exists(Path.Combine(folder, Comparer));

    [AttributeUsage(AttributeTargets.Method)]
    private sealed class ListingFactAttribute : FactAttribute
    {
        public ListingFactAttribute()
        {
            if (FindListings() is null) Skip = $"{Listing} and {Comparer} are neither in $RHO_API_LISTINGS nor in ../shared/api";
        }
    }
}

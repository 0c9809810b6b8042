using System.Runtime.CompilerServices;

namespace Rho.Cli.Tests;

public class RepositoryTests
{
    [Fact]
    public void Solution_ListsEveryProject()
    {
        var root = Root();
        var solution = File.ReadAllText(Path.Combine(root, "Rho.sln")).Replace('\\', '/');
        var missing = Directory.EnumerateFiles(root, "*.csproj", SearchOption.AllDirectories)
            .Select(path => Path.GetRelativePath(root, path))
            .Where(path => !path.Split('/').Intersect([".build", "bin", "obj", "node_modules"]).Any())
            .Where(path => !solution.Contains($"\"{path}\"", StringComparison.Ordinal))
            .ToList();

        Assert.True(missing.Count == 0, $"not in Rho.sln: {string.Join(", ", missing)}; run: dotnet sln Rho.sln add {string.Join(' ', missing)}");
    }

    [Fact]
    public void Solution_NamesOnlyProjectsThatExist()
    {
        var root = Root();
        var gone = File.ReadLines(Path.Combine(root, "Rho.sln"))
            .Where(line => line.Contains(".csproj\"", StringComparison.Ordinal))
            .Select(line => line.Split('"').First(part => part.EndsWith(".csproj", StringComparison.Ordinal)).Replace('\\', '/'))
            .Where(path => !File.Exists(Path.Combine(root, path)))
            .ToList();

        Assert.Empty(gone);
    }

    private static string Root([CallerFilePath] string here = "") => Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "..", ".."));
}

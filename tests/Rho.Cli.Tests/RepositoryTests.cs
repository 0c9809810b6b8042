using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;
using System.Xml.Linq;

namespace Rho.Cli.Tests;

public partial class RepositoryTests
{
    private static readonly string[] Built = [".build", ".git", "bin", "obj", "node_modules"];

    [Fact]
    public void Solution_ListsEveryProject()
    {
        var root = Root();
        var solution = File.ReadAllText(Path.Combine(root, "Rho.sln")).Replace('\\', '/');
        var missing = Directory.EnumerateFiles(root, "*.csproj", SearchOption.AllDirectories)
            .Select(path => Path.GetRelativePath(root, path))
            .Where(path => !path.Split('/').Intersect(Built).Any())
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

    [Fact]
    public void Client_CarriesFormatsAndProtocolAlone()
    {
        var carried = new SortedSet<string>(StringComparer.Ordinal);
        Add(Path.Combine(Root(), "clients", "Rho.Client", "Rho.Client.csproj"));

        Assert.Equal(["Rho.Client", "Rho.Common", "Rho.Formats", "Rho.Protocol"], carried);

        void Add(string project)
        {
            if (!carried.Add(Path.GetFileNameWithoutExtension(project))) return;
            foreach (var reference in XDocument.Load(project).Descendants("ProjectReference"))
                Add(Path.GetFullPath(Path.Combine(Path.GetDirectoryName(project)!, (string)reference.Attribute("Include")!)));
        }
    }

    /// <summary>The targets of links, and the paths in code spans that begin with one of the repository's folders: from its root or from the document.</summary>
    [Fact]
    public void Documents_NameOnlyFilesThatExist()
    {
        var root = Root();
        var gone = new List<string>();
        foreach (var document in Documents(root))
        {
            var text = FencedCode().Replace(File.ReadAllText(document), "");
            string[] folders = [Path.GetDirectoryName(document)!, root];
            var links = Link().Matches(text).Select(link => link.Groups[1].Value).Where(target => !target.Contains(':', StringComparison.Ordinal));
            var paths = CodePath().Matches(text).Select(path => path.Groups[1].Value);
            string[] missing =
            [
                .. links.Where(link => !Path.Exists(Path.Combine(folders[0], link))),
                .. paths.Where(path => !folders.Any(folder => Path.Exists(Path.Combine(folder, path)))),
            ];
            gone.AddRange(missing.Select(name => $"{Path.GetRelativePath(root, document)}: {name}"));
        }

        Assert.True(gone.Count == 0, $"named, but not there: {string.Join(", ", gone)}");
    }

    [Fact]
    public void Documents_HaveNoProseBeyondAScreen()
    {
        const int Longest = 400;
        var root = Root();
        var overlong =
            from document in Documents(root)
            from line in FencedCode().Replace(File.ReadAllText(document), code => new string('\n', code.Value.Count(c => c == '\n'))).Split('\n').Index()
            where Link().Replace(line.Item, "").Length > Longest && !line.Item.StartsWith('|')
            select $"{Path.GetRelativePath(root, document)}:{line.Index + 1} has {line.Item.Length} characters";

        Assert.Empty(overlong);
    }

    private static IEnumerable<string> Documents(string root) =>
        Directory.EnumerateFiles(root, "*.md", SearchOption.AllDirectories).Where(path => !Path.GetRelativePath(root, path).Split('/').Intersect(Built).Any());

    [GeneratedRegex("^```.*?^```", RegexOptions.Singleline | RegexOptions.Multiline)]
    private static partial Regex FencedCode();

    [GeneratedRegex(@"\]\(([^)#\s]+)(?:#[^)]*)?\)")]
    private static partial Regex Link();

    [GeneratedRegex(@"`((?:core|services|trainer|clients|tests|protos|deploy|docs|findings|\.ci)/[\w./-]*)`")]
    private static partial Regex CodePath();

    private static string Root([CallerFilePath] string here = "") => Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "..", ".."));
}

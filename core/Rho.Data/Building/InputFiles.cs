using System.IO.Enumeration;
using System.Text;
using System.Text.RegularExpressions;

namespace Rho.Data;

/// <summary>A file to read.</summary>
/// <param name="Named">The user named this very file, rather than a folder or glob in which it was found.</param>
internal sealed record InputFile(string Path, SourceFormat Format, long Length, long ModifiedTicks, bool Named);

/// <summary>Turns files, folders and globs into the list of files of a source.</summary>
internal static class InputFiles
{
    private const string Extensions = ".txt, .jsonl, .ndjson, .json, .csv and .tsv, plain or with .gz or .zst behind";

    /// <exception cref="RhoException">A path does not exist, is empty, or does not say what it holds.</exception>
    public static IReadOnlyList<InputFile> Find(CorpusSource source)
    {
        if (source.Paths.Count == 0) throw new RhoException("a source of the corpus names no files");
        var files = new List<InputFile>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (var path in source.Paths)
        {
            var before = files.Count;
            if (File.Exists(path)) Add(path, named: true);
            else if (Directory.Exists(path)) AddAll(Walk(path));
            else if (path.AsSpan().ContainsAny('*', '?')) AddAll(Glob(path));
            else throw new NotFoundException($"{path}: no such file or folder");
            if (files.Count == before && !seen.Contains(Path.GetFullPath(path)) && !File.Exists(path))
                throw new RhoException($"{path}: no file in it can be read; a corpus is made of {Extensions}");
        }

        return files;

        void AddAll(IEnumerable<string> found)
        {
            foreach (var path in found.Order(StringComparer.Ordinal))
                if (source.Format != SourceFormat.Auto || FormatOf(path) != SourceFormat.Auto) Add(path, named: false);
        }

        void Add(string path, bool named)
        {
            if (!seen.Add(Path.GetFullPath(path))) return;
            var info = new FileInfo(path);
            if (info.ResolveLinkTarget(returnFinalTarget: true) is FileInfo target) info = target;
            var format = source.Format != SourceFormat.Auto ? source.Format : FormatOf(path);
            if (format == SourceFormat.Auto) throw new RhoException($"{path}: its name does not say what it holds; a corpus is made of {Extensions}");
            if (named && info.Length == 0) throw new RhoException($"{path}: the file is empty");
            files.Add(new InputFile(path, format, info.Length, info.LastWriteTimeUtc.Ticks, named));
        }
    }

    private static SourceFormat FormatOf(string path)
    {
        var extension = Path.GetExtension(path);
        if (extension is ".gz" or ".zst") extension = Path.GetExtension(path[..^extension.Length]);
        return extension switch
        {
            ".txt" => SourceFormat.Text,
            ".jsonl" or ".ndjson" => SourceFormat.JsonLines,
            ".json" => SourceFormat.Json,
            ".csv" => SourceFormat.Csv,
            ".tsv" => SourceFormat.Tsv,
            _ => SourceFormat.Auto,
        };
    }

    // Links to files are followed, as caches of data sets use them; links to folders are not, as they may lead in circles.
    private static IEnumerable<string> Walk(string folder)
    {
        var options = new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.Hidden | FileAttributes.System };
        return new FileSystemEnumerable<string>(folder, (ref FileSystemEntry entry) => entry.ToSpecifiedFullPath(), options)
        {
            ShouldIncludePredicate = (ref FileSystemEntry entry) => !entry.IsDirectory,
            ShouldRecursePredicate = (ref FileSystemEntry entry) => !entry.Attributes.HasFlag(FileAttributes.ReparsePoint),
        };
    }

    private static IEnumerable<string> Glob(string pattern)
    {
        // The folders before the first wildcard are fixed: the search starts there.
        var wildcard = pattern.AsSpan().IndexOfAny('*', '?');
        var cut = pattern.LastIndexOf('/', wildcard) + 1;
        var root = cut == 0 ? "." : pattern[..cut];
        if (!Directory.Exists(root)) throw new NotFoundException($"{pattern}: there is no folder {root}");

        var expression = new StringBuilder("^");
        for (var i = cut; i < pattern.Length; i++)
        {
            if (pattern.AsSpan(i).StartsWith("**/"))
            {
                expression.Append("(?:[^/]+/)*");
                i += 2;
            }
            else if (pattern.AsSpan(i).StartsWith("**"))
            {
                expression.Append(".*");
                i++;
            }
            else
            {
                expression.Append(pattern[i] switch { '*' => "[^/]*", '?' => "[^/]", var c => Regex.Escape(c.ToString()) });
            }
        }

        var regex = new Regex(expression.Append('$').ToString(), RegexOptions.CultureInvariant | RegexOptions.NonBacktracking);
        foreach (var file in Walk(root))
        {
            var relative = Path.GetRelativePath(root, file);
            if (regex.IsMatch(relative)) yield return cut == 0 ? relative : root + relative;
        }
    }
}

using System.Text;

namespace Rho.Data;

/// <summary>The documents of text files as strings, for what needs text rather than tokens, such as training a tokenizer.</summary>
public static class DocumentTexts
{
    /// <summary>Reads the documents of all sources, one file after another, each source once. Memory is bounded by the longest record.</summary>
    /// <param name="maxBadRecords">Records that cannot be read are left out up to this number.</param>
    /// <param name="progress">Gets the bytes of the input files, as on disk, that were read, and how many there are.</param>
    /// <exception cref="RhoException">A file is missing or empty, or there are too many bad records; the message names file and line. Thrown while reading.</exception>
    public static IEnumerable<string> Read(
        IReadOnlyList<CorpusSource> sources, int maxBadRecords = 10, IProgress<(long Done, long Total)>? progress = null, CancellationToken cancellation = default)
    {
        var files = sources.SelectMany(source => InputFiles.Find(source).Select(file => (source, file))).ToList();
        var total = files.Sum(pair => pair.file.Length);
        long before = 0;
        var bad = 0;
        foreach (var (source, file) in files)
        {
            var (stream, content) = Decompression.Open(file.Path);
            using var reader = RecordReader.Open(file.Path, file.Format, source.Separator, content);
            RecordText? text = null;
            var documents = 0;
            while (reader.Read())
            {
                cancellation.ThrowIfCancellationRequested();
                text ??= RecordText.For(file, source, reader.Columns);
                if ((reader.Fault ?? text.Make(reader.Record)) is { } fault)
                {
                    if (++bad > maxBadRecords) throw new RhoException($"{file.Path}:{reader.Line}: {fault}");
                    continue;
                }

                documents++;
                progress?.Report((before + stream.Position, total));
                yield return Encoding.UTF8.GetString(text.Text);
            }

            if (file.Named && documents == 0) throw new RhoException($"{file.Path}: there is no text in the file");
            before += file.Length;
        }
    }
}

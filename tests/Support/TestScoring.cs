using Rho.Formats;
using Rho.Hosting;
using Rho.Model;
using Rho.Scoring;

namespace Rho.TestSupport;

/// <summary>Shards, scorers over <see cref="HashModel"/>, and what these have to say.</summary>
internal static class TestScoring
{
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    public static TokenShard Shard(string path, int sequences, int length, int seed = 1, int vocabularySize = 1000, bool withDocuments = false)
    {
        var random = new Random(seed);
        var tokens = new int[sequences * length];
        for (var i = 0; i < tokens.Length; i++) tokens[i] = random.Next(vocabularySize);
        var pieces = new List<Piece>();
        long document = 0;
        for (var i = 0; i < sequences; i++)
        {
            if (!withDocuments)
            {
                pieces.Add(new Piece(i, 0, length, document++));
                continue;
            }

            // Documents of random lengths, the last sequence with padding at its end.
            var end = i == sequences - 1 ? length - length / 4 : length;
            for (var start = 0; start < end;)
            {
                var count = Math.Min(random.Next(1, length), end - start);
                pieces.Add(new Piece(i, start, count, document++));
                start += count;
            }

            tokens.AsSpan(i * length + end, length - end).Clear();
        }

        TokenShard.Write(path, tokens, length, vocabularySize, pieces.ToArray());
        return TokenShard.Open(path);
    }

    /// <summary>What <see cref="HashModel"/> says of a shard, without any service.</summary>
    public static float[] Expected(TokenShard shard, bool documentsSeeEachOther, float shift = 0)
    {
        var tokens = new int[shard.Sequences * shard.Length];
        var documents = new int[tokens.Length];
        shard.Read(0, tokens);
        shard.ReadDocuments(0, documents);
        if (documentsSeeEachOther)
            for (var i = 0; i < documents.Length; i++)
                documents[i] = Math.Min(documents[i], 0);
        var losses = new float[tokens.Length];
        using var model = new HashModel { Shift = shift };
        model.Score(tokens, (int)shard.Sequences, shard.Length, documents, losses, CancellationToken.None);
        return Rounded(losses);
    }

    /// <summary>Losses as they are after a way through F16.</summary>
    public static float[] Rounded(float[] losses)
    {
        var bytes = new byte[losses.Length * 2];
        LossCodec.Encode(losses, LossEncoding.F16, bytes);
        var rounded = new float[losses.Length];
        LossCodec.Decode(bytes, LossEncoding.F16, rounded);
        return rounded;
    }

    public static RhoHostOptions Host() => new() { Service = "rho-scorer", GrpcPort = 0, HttpPort = 0, LogLevel = Microsoft.Extensions.Logging.LogLevel.Error, DrainTimeout = TimeSpan.FromSeconds(5) };

    public static Task<ScoringHost> StartAsync(HashModel model, ScoringOptions? options = null) =>
        ScoringHost.StartAsync((options ?? new ScoringOptions()) with { Host = Host() }, [model]).WaitAsync(Patience);
}

using Rho.TestSupport;

namespace Rho.Formats.Tests;

/// <summary>What the project writes, as another program sees it: twenty lines of Python and NumPy that follow the published format.</summary>
public sealed class PythonReadTests : IDisposable
{
    private const string Script = """
        import hashlib, json, struct, sys
        import numpy as np
        TYPES = {"U8": "u1", "U16": "<u2", "U32": "<u4", "I64": "<i8", "F16": "<f2", "F32": "<f4"}
        def load(path):
            raw = open(path, "rb").read()
            n = struct.unpack("<Q", raw[:8])[0]
            header = json.loads(raw[8:8 + n])
            meta = header.pop("__metadata__", {})
            assert (8 + n) % 8 == 0
            return meta, {k: np.frombuffer(raw[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]], TYPES[v["dtype"]]).reshape(v["shape"]) for k, v in header.items()}
        meta, shard = load(sys.argv[1])
        t = shard["tokens"]
        print(meta["format"], t.dtype, t.tolist(), shard["documents"].tolist())
        print(hashlib.sha256(b"U%d %d %d\n" % (t.itemsize * 8, *t.shape) + t.tobytes()).hexdigest())
        for path in sys.argv[2:]:
            meta, scores = load(path)
            loss = scores["loss"]
            if meta["encoding"] == "log8":
                loss = np.where(loss == 255, np.nan, (129 ** (loss / 254.0) - 1) / 4)
            print(meta["reference"], meta["shard_sha256"], [f"{x:.2f}" for x in loss.ravel().astype(float)])
        """;

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task NumPy_ReadsShardsAndScores_AsWritten()
    {
        await DebianPython.NeedAsync("numpy");
        TokenShard.Write(_folder["shard"], [1, 2, 3, 4, 5, 0], 3, 100, [new Piece(0, 0, 3, 0), new Piece(1, 0, 2, 1)]);
        string[] scores = ["f16", "f32", "log8"];
        foreach (var name in scores)
        {
            using var writer = ScoreFile.Create(_folder[name], "r", "s", LossCodec.Parse(name), 1, 4);
            writer.Write(0, [float.NaN, 0, 1, 10.25f]);
            writer.Complete();
        }

        var output = await DebianPython.RunAsync(["-c", Script, _folder["shard"], .. scores.Select(name => _folder[name])]);
        using var shard = TokenShard.Open(_folder["shard"]);
        Assert.Equal(
            [
                "rho.tokens.v1 uint16 [[1, 2, 3], [4, 5, 0]] [[0, 0, 3, 0], [1, 0, 2, 1]]",
                shard.Sha256,
                "r s ['nan', '0.00', '1.00', '10.25']",
                "r s ['nan', '0.00', '1.00', '10.25']",
                "r s ['nan', '0.00', '1.00', '10.18']",
            ],
            output.TrimEnd().Split('\n'));
    }
}

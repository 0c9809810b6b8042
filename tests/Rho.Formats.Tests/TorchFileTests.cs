using System.Runtime.InteropServices;
using System.Text.Json;
using Rho.Formats.Torch;
using Rho.TestSupport;

namespace Rho.Formats.Tests;

/// <summary>Files that torch/make.py wrote with PyTorch.</summary>
public sealed class TorchFileTests : IDisposable
{
    private static readonly string Folder = Path.Combine(AppContext.BaseDirectory, "torch");

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("types.bin")]
    [InlineData("views.bin")]
    [InlineData("module.bin")]
    [InlineData("protocol4.bin")]
    [InlineData("zip64.bin")]
    public void Read_AnyTensor_EqualsWhatPyTorchReads(string name)
    {
        using var document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(Folder, "expected.json")));
        using var file = TorchFile.Open(Path.Combine(Folder, name));
        var expected = document.RootElement.GetProperty(name).EnumerateObject().ToList();
        Assert.Equal(expected.Select(tensor => tensor.Name).Order(StringComparer.Ordinal), file.Tensors.Keys.Order(StringComparer.Ordinal));
        foreach (var tensor in expected)
        {
            var entry = file.Tensors[tensor.Name];
            Assert.Equal(tensor.Value[0].GetString(), entry.Type.Name());
            Assert.Equal(tensor.Value[1].EnumerateArray().Select(size => size.GetInt64()), entry.Shape);
            var values = tensor.Value[2].EnumerateArray().Select(value => value.GetDouble()).ToArray();
            var bytes = new byte[entry.ByteLength];
            file.Read(tensor.Name, 0, bytes);
            Assert.Equal(values, Numbers(entry.Type, bytes));

            // The same in pieces of any number of elements.
            var size = entry.Type.Size();
            var pieces = new byte[entry.ByteLength];
            for (var (start, count) = (0, 1); start < pieces.Length; start += count * size, count = Math.Min(count + 1, (pieces.Length - start) / size))
                file.Read(tensor.Name, start, pieces.AsSpan(start, count * size));
            Assert.Equal(bytes, pieces);
        }
    }

    [Theory]
    [InlineData("bad-system", "posix.system")]
    [InlineData("bad-eval", "builtins.eval")]
    [InlineData("bad-namespace", "argparse.Namespace")]
    [InlineData("bad-object", "_io.StringIO")]
    [InlineData("bad-bytes", "bytes")]
    [InlineData("bad-persistent", "persistent id")]
    [InlineData("bad-sparse", "torch._utils._rebuild_sparse_tensor")]
    [InlineData("bad-quantized", "torch._utils._rebuild_qtensor")]
    [InlineData("bad-complex", "torch.ComplexFloatStorage")]
    [InlineData("bad-nested", "under \"model\" there is no tensor")]
    [InlineData("bad-number", "under \"epoch\" there is no tensor")]
    [InlineData("bad-list", "no dictionary of tensors")]
    [InlineData("bad-beyond", "beyond its storage 0")]
    [InlineData("bad-overflow", "not possible")]
    [InlineData("bad-negative", "damaged")]
    [InlineData("bad-storage", "storage 99, which is missing")]
    [InlineData("bad-short", "16 elements, of which the file has 15")]
    [InlineData("bad-compressed", "compressed")]
    [InlineData("bad-no-pickle", "data.pkl")]
    [InlineData("bad-byteorder", "byte order big")]
    [InlineData("bad-legacy", "before version 1.6")]
    [InlineData("bad-not-zip", "no zip directory")]
    public void Open_AnythingElse_IsRefusedByName(string name, string expected)
    {
        var path = Path.Combine(Folder, name + ".bin");
        var message = Assert.Throws<RhoException>(() => TorchFile.Open(path)).Message;
        Assert.Contains(expected, message, StringComparison.Ordinal);
        Assert.StartsWith(path, message, StringComparison.Ordinal);
    }

    [Fact]
    public void Open_NoSuchFile_SaysSo() => Assert.Throws<NotFoundException>(() => TorchFile.Open(_folder["nothing.bin"]));

    [Fact]
    public void Open_EmptyFile_IsRefused()
    {
        File.WriteAllBytes(_folder["empty.bin"], []);
        Assert.Contains("empty", Assert.Throws<RhoException>(() => TorchFile.Open(_folder["empty.bin"])).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("views.bin")]
    [InlineData("protocol4.bin")]
    [InlineData("zip64.bin")]
    public void Open_DamagedAnywhere_GivesRhoExceptionOrTensorsInsideTheFile(string name)
    {
        var original = File.ReadAllBytes(Path.Combine(Folder, name));
        var path = _folder["damaged.bin"];
        var random = new Random(name.Length);
        for (var round = 0; round < 600; round++)
        {
            var damaged = original.ToArray();
            if (round % 3 == 0) damaged = damaged[..random.Next(damaged.Length)];
            for (var i = random.Next(1, 6); i > 0 && damaged.Length > 0; i--) damaged[random.Next(damaged.Length)] = (byte)random.Next(256);
            File.WriteAllBytes(path, damaged);
            try
            {
                using var file = TorchFile.Open(path);
                foreach (var entry in file.Tensors.Values.Where(entry => entry.ByteLength < 1 << 20)) file.Read(entry.Name, 0, new byte[entry.ByteLength]);
            }
            catch (RhoException)
            {
                // Refused, as it should be.
            }
        }
    }

    private static double[] Numbers(ElementType type, byte[] bytes) => type switch
    {
        ElementType.F64 => MemoryMarshal.Cast<byte, double>(bytes).ToArray(),
        ElementType.F32 => Convert<float>(bytes, value => value),
        ElementType.F16 => Convert<Half>(bytes, value => (double)value),
        ElementType.BF16 => Convert<ushort>(bytes, value => BitConverter.Int32BitsToSingle(value << 16)),
        ElementType.I64 => Convert<long>(bytes, value => value),
        ElementType.I32 => Convert<int>(bytes, value => value),
        ElementType.I16 => Convert<short>(bytes, value => value),
        ElementType.I8 => Convert<sbyte>(bytes, value => value),
        _ => Convert<byte>(bytes, value => value),
    };

    private static double[] Convert<T>(byte[] bytes, Converter<T, double> convert)
        where T : struct => Array.ConvertAll(MemoryMarshal.Cast<byte, T>(bytes).ToArray(), convert);
}

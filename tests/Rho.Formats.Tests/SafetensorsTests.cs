using System.Buffers.Binary;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Rho.TestSupport;

namespace Rho.Formats.Tests;

public sealed class SafetensorsTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Open_WhatWriterWrote_ReadsSameTensorsAndMetadata()
    {
        var path = _folder["a.safetensors"];
        using (var writer = SafetensorsWriter.Create(
            path,
            [("bytes", ElementType.U8, [3]), ("wide", ElementType.F64, [2, 1]), ("scalar", ElementType.BF16, []), ("empty", ElementType.F32, [0, 7])],
            new Dictionary<string, string> { ["b"] = "zwei \"2\"", ["a"] = "1" }))
        {
            writer.Write("bytes", 1, [2, 3]);
            writer.Write("wide", 0, BitConverter.GetBytes(1.5));
            writer.Write("bytes", 0, [1]);
            writer.Write("wide", 8, BitConverter.GetBytes(-2.5));
            writer.Write("scalar", 0, [0x80, 0x3F]);
            Assert.False(File.Exists(path));
            writer.Complete();
        }

        using var file = SafetensorsFile.Open(path);
        Assert.Equal("zwei \"2\"", file.Metadata["b"]);
        Assert.Equal(4, file.Tensors.Count);
        Assert.Equal([1, 2, 3], file.Bytes("bytes").ToArray());
        Assert.Equal([2, 3], file.Bytes("bytes", 1).ToArray());
        Assert.Equal([2, 1], file.Tensors["wide"].Shape);
        Assert.Equal(-2.5, BitConverter.ToDouble(file.Bytes("wide", 8, 8)));
        Assert.Empty(file.Tensors["scalar"].Shape);
        Assert.Equal(1, file.Tensors["scalar"].Elements);
        Assert.True(file.Bytes("empty").IsEmpty);
        Assert.Equal([path], Directory.GetFiles(_folder.Path));
    }

    [Fact]
    public void Dispose_WithoutComplete_LeavesNothing()
    {
        using (var writer = SafetensorsWriter.Create(_folder["a"], [("x", ElementType.U8, [4])])) writer.Write("x", 0, [1, 2, 3, 4]);
        Assert.Empty(Directory.GetFiles(_folder.Path));
    }

    [Fact]
    public void Complete_WithBytesMissing_NamesTensor()
    {
        using var writer = SafetensorsWriter.Create(_folder["a"], [("x", ElementType.U8, [4])]);
        writer.Write("x", 0, [1]);
        Assert.Contains("\"x\"", Assert.Throws<InvalidOperationException>(writer.Complete).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Create_InMissingFolder_SaysSo()
        => Assert.Contains("folder does not exist", Assert.Throws<RhoException>(() => SafetensorsWriter.Create(_folder["no/a"], [])).Message, StringComparison.Ordinal);

    [Fact]
    public void Create_OnFullDisk_SaysSo()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "only on Linux");
        var free = new DriveInfo(_folder.Path).AvailableFreeSpace;
        var error = Assert.Throws<RhoException>(() => SafetensorsWriter.Create(_folder["a"], [("x", ElementType.U8, [free + (1L << 30)])]));
        Assert.Contains("the disk is full", error.Message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(_folder.Path));
    }

    [Fact]
    public void Bytes_AfterDispose_Throws()
    {
        var file = SafetensorsFile.Open(Write("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1));
        file.Dispose();
        Assert.Throws<ObjectDisposedException>(() => file.Bytes("x").Length);
    }

    [Fact]
    public void Bytes_OutsideTensor_Throws()
    {
        using var file = SafetensorsFile.Open(Write("{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Bytes("x", 5).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Bytes("x", 1, 4).Length);
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Bytes("x", -1, 1).Length);
        Assert.Contains("has no tensor \"y\"; it has x", Assert.Throws<RhoException>(() => file.Bytes("y").Length).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}", 2, "broken JSON")]
    [InlineData("[]", 0, "the header is not an object")]
    [InlineData("{} {}", 0, "header")]
    [InlineData("{\"x\":1}", 0, "tensor \"x\" is not an object")]
    [InlineData("{\"x\":{\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "tensor \"x\" has no dtype")]
    [InlineData("{\"x\":{\"dtype\":\"F12\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "tensor \"x\" has the unknown dtype \"F12\"; known are BOOL, U8")]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 1, "tensor \"x\" ends at byte 2 of the data, but the file holds 1: it is truncated")]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 5, "the last 3 bytes of the file belong to no tensor")]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}", 3, "tensor \"x\" appears twice")]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, "tensor \"y\" starts at byte 1 of the data, inside tensor \"x\"")]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, "bytes 0 to 1 of the data, before tensor \"x\", belong to no tensor")]
    [InlineData("{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,7]}}", 7, "tensor \"x\": F32 [2] takes 8 bytes, but data_offsets [0, 7] hold 7")]
    [InlineData("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}", 5, "tensor \"x\" is misaligned")]
    [InlineData("{\"x\":{\"dtype\":\"F32\",\"shape\":[3037000500,3037000500],\"data_offsets\":[0,8]}}", 8, "is too large")]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, "tensor \"x\": shape holds something")]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[1.5],\"data_offsets\":[0,1]}}", 1, "tensor \"x\": shape holds something")]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, "are not a begin and an end")]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,18446744073709551615]}}", 1, "tensor \"x\": data_offsets holds something")]
    [InlineData("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "tensor \"x\": shape appears twice")]
    [InlineData("{\"__metadata__\":{\"a\":1}}", 0, "metadata \"a\" is not a string")]
    [InlineData("{\"__metadata__\":{\"a\":\"1\",\"a\":\"1\"}}", 0, "metadata \"a\" appears twice")]
    [InlineData("{\"x\\ud800\":{}}", 0, "broken JSON")]
    public void Open_BrokenHeader_SaysWhatIsWrong(string header, int dataBytes, string expected)
    {
        var path = Write(header, dataBytes, pad: true);
        var error = Assert.Throws<RhoException>(() => SafetensorsFile.Open(path));
        Assert.StartsWith(path + ": ", error.Message, StringComparison.Ordinal);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void Open_DataStartsUnaligned_SaysSo()
    {
        var path = Write("{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}   ", 4);
        Assert.Contains("tensor \"x\" is misaligned", Assert.Throws<RhoException>(() => SafetensorsFile.Open(path)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(100_000_001)]
    [InlineData(-1)]
    [InlineData(long.MinValue)]
    [InlineData(500)]
    public void Open_ImpossibleHeaderLength_SaysSo(long length)
    {
        var bytes = new byte[100];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, length);
        var error = Assert.Throws<RhoException>(() => SafetensorsFile.Open(_folder.Write("a", bytes)));
        Assert.Contains("header", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(7)]
    public void Open_FileShorterThanALength_SaysSo(int bytes)
        => Assert.Contains($"{bytes} bytes", Assert.Throws<RhoException>(() => SafetensorsFile.Open(_folder.Write("a", new byte[bytes]))).Message, StringComparison.Ordinal);

    [Fact]
    public void Open_MissingFileOrFolder_SaysSo()
    {
        Assert.Throws<NotFoundException>(() => SafetensorsFile.Open(_folder["no"]));
        Assert.Throws<RhoException>(() => SafetensorsFile.Open(_folder.Path));
    }

    [Fact]
    public void Open_ValidFileWithBytesChanged_OpensOrThrowsRhoException()
    {
        var path = _folder["valid"];
        using (var writer = SafetensorsWriter.Create(path, [("a", ElementType.F32, [2, 3]), ("b", ElementType.U8, [5])], new Dictionary<string, string> { ["k"] = "v" }))
        {
            writer.Write("a", 0, new byte[24]);
            writer.Write("b", 0, new byte[5]);
            writer.Complete();
        }

        var valid = File.ReadAllBytes(path);
        var random = new Random(1);
        var characters = "{}[]\",:0123456789eE-.\\u \0FUI"u8.ToArray();
        var fuzzed = _folder["fuzzed"];
        for (var round = 0; round < 5000; round++)
        {
            var bytes = valid.AsSpan().ToArray();
            for (var change = random.Next(1, 4); change > 0; change--)
                bytes[random.Next(bytes.Length - 29)] = random.Next(3) == 0 ? (byte)random.Next(256) : characters[random.Next(characters.Length)];
            if (random.Next(4) == 0) bytes = bytes[..random.Next(bytes.Length)];
            File.WriteAllBytes(fuzzed, bytes);
            try
            {
                using var file = SafetensorsFile.Open(fuzzed);
                foreach (var tensor in file.Tensors.Keys)
                    foreach (var value in file.Bytes(tensor)) Assert.Equal(0, value);
            }
            catch (RhoException e)
            {
                Assert.StartsWith(fuzzed, e.Message, StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public void Write_ThenRead_AnyTensors_RoundTrips()
    {
        var sizes = Gen.ArrayOf(Gen.Choose(0, 5).Select(i => (long)i)).Where(s => s.Length <= 4);
        var types = Gen.Elements(Enum.GetValues<ElementType>());
        var tensors = Gen.ListOf(Gen.Zip(types, sizes)).Where(l => l.Count <= 8).ToArbitrary();
        var number = 0;
        Prop.ForAll(tensors, list =>
        {
            var path = _folder[$"t{number++}"];
            var data = list.Select((t, i) => (Name: $"tensor.{i}", Type: t.Item1, Shape: t.Item2, Bytes: RandomBytes(i, t.Item1, t.Item2))).ToArray();
            using (var writer = SafetensorsWriter.Create(path, data.Select(t => (t.Name, t.Type, t.Shape))))
            {
                foreach (var t in data) writer.Write(t.Name, 0, t.Bytes);
                writer.Complete();
            }

            using var file = SafetensorsFile.Open(path);
            foreach (var t in data)
            {
                Assert.Equal(t.Bytes, file.Bytes(t.Name).ToArray());
                Assert.Equal(t.Shape, file.Tensors[t.Name].Shape);
                Assert.Equal(t.Type, file.Tensors[t.Name].Type);
            }
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    [Trait("Category", "Slow")]
    public unsafe void Open_TensorOver2GiB_ReachesItsEnd()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "only on Linux");
        // A sparse file takes no space on disk.
        const long Size = (1L << 31) + 4096;
        var path = _folder["large"];
        var header = SafetensorsHeader.Serialize([new TensorEntry("x", ElementType.U8, [Size], 0, Size)], metadata: null);
        using (var stream = File.Create(path))
        {
            stream.Write(header);
            stream.SetLength(header.Length + Size);
            stream.Position = stream.Length - 1;
            stream.WriteByte(42);
        }

        using var file = SafetensorsFile.Open(path);
        Assert.Equal(42, file.Pointer("x")[Size - 1]);
        Assert.Equal([0, 42], file.Bytes("x", Size - 2).ToArray());
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Bytes("x").Length);
    }

    private static byte[] RandomBytes(int seed, ElementType type, long[] shape)
    {
        var bytes = new byte[shape.Aggregate((long)type.Size(), (a, b) => a * b)];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    private string Write(string header, int dataBytes, bool pad = false)
    {
        var json = Encoding.UTF8.GetBytes(header);
        if (pad) json = [.. json, .. Enumerable.Repeat((byte)' ', (8 - json.Length % 8) % 8)];
        var bytes = new byte[8 + json.Length + dataBytes];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, json.Length);
        json.CopyTo(bytes, 8);
        return _folder.Write($"f{Guid.NewGuid():N}", bytes);
    }
}

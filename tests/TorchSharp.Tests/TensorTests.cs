using System.Runtime.InteropServices;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace TorchSharp.Tests;

/// <summary>Making tensors, reading and writing their memory, conversions, random numbers, errors.</summary>
public sealed class TensorTests
{
    [Fact]
    public void Tensor_FromArrays_HasTheirShapeTypeAndValues()
    {
        using var scope = NewDisposeScope();
        Check(tensor(new[] { true, false }), @bool, [2], [true, false]);
        Check(tensor(new byte[] { 1, 255 }), uint8, [2], [(byte)1, (byte)255]);
        Check(tensor(new sbyte[] { -1, 2 }), int8, [2], [(sbyte)-1, (sbyte)2]);
        Check(tensor(new short[] { -1, 2 }), int16, [2], [(short)-1, (short)2]);
        Check(tensor(new[] { -1, 2 }), int32, [2], [-1, 2]);
        Check(tensor(new[] { -1L, 2L }), int64, [2], [-1L, 2L]);
        Check(tensor(new[] { (Half)1.5 }), float16, [1], [(Half)1.5]);
        Check(tensor(new[] { new BFloat16(1.5f) }), bfloat16, [1], [new BFloat16(1.5f)]);
        Check(tensor(new[] { 1.5f }), float32, [1], [1.5f]);
        Check(tensor(new[] { 1.5 }), float64, [1], [1.5]);
        Check(tensor(new[,] { { 1f, 2f, 3f }, { 4f, 5f, 6f } }), float32, [2, 3], [1f, 2f, 3f, 4f, 5f, 6f]);
        Check(tensor(new[, ,] { { { 1L }, { 2L } } }), int64, [1, 2, 1], [1L, 2L]);
        Check(tensor(new[] { 1f, 2f, 3f, 4f }, [2, 2]), float32, [2, 2], [1f, 2f, 3f, 4f]);
        Check(tensor(new List<int> { 1, 2 }, dtype: int64), int64, [2], [1L, 2L]);
        Check(tensor(new[] { 1f, 2f }.AsMemory(), [2, 1]), float32, [2, 1], [1f, 2f]);
        Check(tensor(new[] { 1.9, -1.9 }, dtype: int32), int32, [2], [1, -1]);
        Check(tensor(3), int32, [], [3]);
        Check(tensor(3L), int64, [], [3L]);
        Check(tensor(3f), float32, [], [3f]);
        Check(tensor(3.0, float32), float32, [], [3f]);
        Check(tensor(Array.Empty<float>()), float32, [0], Array.Empty<float>());
        Assert.True(tensor(new[] { 1f }, requires_grad: true).requires_grad);
        Assert.Throws<ArgumentException>(() => tensor(new[] { 1f, 2f }, [3]));
    }

    [Fact]
    public void Tensor_CopiesItsArray_WhileFromArrayAndFrombufferShareIt()
    {
        using var scope = NewDisposeScope();
        var array = new[] { 1f, 2f, 3f, 4f };
        var copy = tensor(array);
        var shared = from_array(array);
        var part = frombuffer(array, float32, count: 2, offset: 1);
        var converted = as_tensor(array, dtype: float64);
        array[1] = 20;
        Assert.Equal([1f, 2f, 3f, 4f], copy.data<float>().ToArray());
        Assert.Equal([1f, 20f, 3f, 4f], shared.data<float>().ToArray());
        Assert.Equal([20f, 3f], part.data<float>().ToArray());
        Assert.Equal([1.0, 2.0, 3.0, 4.0], converted.data<double>().ToArray());
        part.fill_(7);
        Assert.Equal([1f, 7f, 7f, 4f], array);
        Assert.Throws<IndexOutOfRangeException>(() => frombuffer(array, float32, count: 5));
        Assert.Throws<ArgumentException>(() => frombuffer(array, float32, offset: 4));
        Check(from_array(new[,] { { 1, 2 }, { 3, 4 } }), int32, [2, 2], [1, 2, 3, 4]);
    }

    [Fact]
    public void SharedArray_IsUnpinnedWithTheStorage()
    {
        var weak = ShareAndDrop();
        for (var i = 0; i < 10 && weak.IsAlive; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }

        Assert.False(weak.IsAlive);
    }

    [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
    private static WeakReference ShareAndDrop()
    {
        var array = new float[1000];
        using var view = from_array(array).view(10, 100);
        return new WeakReference(array);
    }

    [Fact]
    public void Factories_GiveShapeTypeAndFilling()
    {
        using var scope = NewDisposeScope();
        Check(zeros(2), float32, [2], [0f, 0f]);
        Check(ones(1, 2), float32, [1, 2], [1f, 1f]);
        Check(ones([2L], int64), int64, [2], [1L, 1L]);
        Check(full(2, 1, 2.5), float32, [2, 1], [2.5f, 2.5f]);
        Assert.Equal([2L, 3L, 4L, 5L], empty(2, 3, 4, 5, float16).shape);
        Check(zeros_like(ones(2, int64)), int64, [2], [0L, 0L]);
        Check(ones_like(zeros(2), dtype: float64), float64, [2], [1.0, 1.0]);
        Check(full_like(zeros(2), 3), float32, [2], [3f, 3f]);
        Assert.True(zeros(2, requires_grad: true).requires_grad);
        Assert.Equal([1L, 2L], empty_strided([2, 2], [1, 2]).stride());
        Assert.Equal(float64, rand_like(zeros(2, float64)).dtype);
        Assert.Equal([3L], randn_like(zeros(3)).shape);
        Assert.Equal([0L, 1L, 2L], randperm(3).sort().Values.data<long>().ToArray());
        Assert.Throws<NotSupportedException>(() => zeros(2, names: ["batch"]));
        Assert.Equal(float32, get_default_dtype());
    }

    [Fact]
    public void Properties_DescribeTheTensor()
    {
        using var scope = NewDisposeScope();
        var x = zeros(2, 3, 4, float16);
        Assert.Equal([2L, 3L, 4L], x.shape);
        Assert.Equal([12L, 4L, 1L], x.stride());
        Assert.Equal((3L, 24L, 2L, 4L, 4L), (x.ndim, x.numel(), x.element_size(), x.size(-1), x.stride(1)));
        Assert.Equal((DeviceType.CPU, "cpu"), (x.device_type, x.device.ToString()));
        Assert.True(x.is_contiguous());
        Assert.False(x.transpose(0, 1).is_contiguous());
        Assert.Equal(4, x[0, 1].storage_offset());
        Assert.True(x.is_floating_point());
        Assert.Equal("[2x3x4], type = Float16, device = cpu", x.ToString());
        Assert.Equal([], zeros(1).squeeze().shape);
        Assert.Throws<ExternalException>(() => x.size(3));
        Assert.True(x.is_leaf);
        Assert.False((ones(1, requires_grad: true) * 2).is_leaf);
    }

    [Fact]
    public void Bytes_AreTheTensorsOwnMemory()
    {
        using var scope = NewDisposeScope();
        var x = tensor(new[] { 1f, 2f });
        MemoryMarshal.Cast<byte, float>(x.bytes)[1] = 5;
        Assert.Equal(5f, x[1].item<float>());
        x.bytes = MemoryMarshal.AsBytes<float>([7f, 8f]).ToArray();
        Assert.Equal([7f, 8f], x.data<float>().ToArray());
        Assert.Throws<InvalidOperationException>(() => zeros(2, 2).t().bytes.Length);
        Assert.Throws<ArgumentException>(() => x.bytes = new byte[3]);
        using var stream = new MemoryStream();
        x.WriteBytesToStream(stream, bufferSize: 3);
        Assert.Equal(8, stream.Length);
        stream.Position = 0;
        var y = zeros(2);
        y.ReadBytesFromStream(stream, bufferSize: 5);
        Assert.True(x.Equals(y));
        Assert.Throws<EndOfStreamException>(() => y.ReadBytesFromStream(stream));
    }

    [Fact]
    public void Data_FollowsStrides()
    {
        using var scope = NewDisposeScope();
        var x = arange(6).view(2, 3).t();
        var data = x.data<long>();
        Assert.Equal([0L, 3L, 1L, 4L, 2L, 5L], data.ToArray());
        Assert.Equal([0L, 3L, 1L, 4L, 2L, 5L], data);
        Assert.Equal((4L, 5L), (data[3], data[2, 1]));
        data[2, 1] = 50;
        Assert.Equal(50, x[2, 1].item<long>());
        Assert.Equal(new long[,] { { 0, 3 }, { 1, 4 }, { 2, 50 } }, data.ToNDArray());
        var some = new long[3];
        data.CopyTo(some, arrayIndex: 1, tensorIndex: 2);
        Assert.Equal([0L, 1L, 4L], some);
        data.CopyFrom([9L, 8L]);
        Assert.Equal([9L, 8L, 1L], data.Take(3));
        Assert.Throws<IndexOutOfRangeException>(() => data[6]);
        Assert.Throws<ArgumentException>(() => x.data<int>());
    }

    [Fact]
    public void Item_ReadsTheOnlyElement()
    {
        using var scope = NewDisposeScope();
        Assert.Equal(2.5f, tensor(2.5f).item<float>());
        Assert.Equal((Half)2.5, tensor(2.5f).half().item<Half>());
        Assert.Equal(2.5f, tensor(2.5f).bfloat16().item<BFloat16>().ToSingle());
        Assert.True(ones(1).eq(1).item<bool>());
        Assert.Equal(7.0, tensor(7L).ToDouble());
        Assert.Equal(7, tensor(7f).ToInt32());
        Assert.Equal(7f, (float)tensor(7));
        Assert.Equal((ScalarType.Int64, ScalarType.Float64, ScalarType.Bool), (tensor(7).ToScalar().Type, tensor(7f).ToScalar().Type, tensor(true).ToScalar().Type));
        Assert.Throws<ArgumentException>(() => ones(2).item<float>());
        Assert.Throws<ArgumentException>(() => tensor(1f).item<double>());
        Assert.Throws<ExternalException>(() => ones(2).ToSingle());
    }

    [Fact]
    public void To_SameTypeAndDevice_SharesMemoryUnlessACopyIsAskedFor()
    {
        using var scope = NewDisposeScope();
        var x = zeros(2);
        x.to(float32).fill_(1);
        Assert.Equal([1f, 1f], x.data<float>().ToArray());
        x.to(float32, copy: true).fill_(2);
        x.clone().fill_(2);
        Assert.Equal([1f, 1f], x.data<float>().ToArray());
        var gone = zeros(2);
        Assert.Equal(float64, gone.to(float64, disposeAfter: true).dtype);
        Assert.True(gone.IsInvalid);
        Assert.Throws<ExternalException>(() => zeros(2).to(new Device(DeviceType.META)).cpu());
    }

    [Fact]
    public void Rounding_ToBFloat16_IsLibtorchs()
    {
        using var scope = NewDisposeScope();
        var random = new Random(1);
        var values = new float[1000];
        for (var i = 0; i < values.Length; i++) values[i] = (float)(random.NextDouble() * Math.Pow(10, random.Next(-30, 30)));
        var native = tensor(values).to(bfloat16).data<BFloat16>().ToArray();
        Assert.Equal(native, Array.ConvertAll(values, value => new BFloat16(value)));
        Assert.True(BFloat16.IsNaN(new BFloat16(float.NaN)));
    }

    [Fact]
    public void Generators_OfOneSeed_GiveOneSequence()
    {
        using var scope = NewDisposeScope();
        using var first = new Generator(7);
        using var second = new Generator().manual_seed(7);
        Assert.Equal(7, first.initial_seed());
        Assert.True(rand(5, generator: first).Equals(rand(5, generator: second)));
        var state = first.get_state();
        var expected = randn([3L], generator: first);
        first.set_state(state);
        Assert.True(expected.Equals(randn([3L], generator: first)));
        Assert.False(expected.Equals(randn([3L], generator: first)));
        var numbers = randint(3, 9, [100L], generator: first).data<long>().ToArray();
        Assert.Equal((3L, 8L), (numbers.Min(), numbers.Max()));
        Assert.Equal(int64, randint(5, [2L]).dtype);
        Assert.InRange(zeros(1000).normal_(3, 0.1, first).mean().item<float>(), 2.95f, 3.05f);
        Assert.InRange(zeros(1000).uniform_(2, 4, first).mean().item<float>(), 2.9f, 3.1f);
        Assert.InRange(zeros(1000).exponential_(2, first).mean().item<float>(), 0.4f, 0.6f);
        Assert.InRange(zeros(1000).bernoulli_(0.3, first).mean().item<float>(), 0.2f, 0.4f);
        Assert.InRange(normal(2, 0.1, [1000L], generator: first).mean().item<float>(), 1.95f, 2.05f);
        Assert.Equal([1L, 1L], tensor(new[] { 0f, 1f, 0f }).multinomial(2, replacement: true, generator: first).data<long>().ToArray());
    }

    [Fact]
    public void Errors_CarryLibtorchsMessageAlone()
    {
        using var scope = NewDisposeScope();
        var error = Assert.Throws<ExternalException>(() => ones(2, 3).matmul(ones(4, 5)));
        Assert.Equal("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", error.Message);
        error = Assert.Throws<ExternalException>(() => ones(2).add_(ones(3)));
        Assert.Contains("The size of tensor a (2) must match the size of tensor b (3)", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("frame #", error.Message, StringComparison.Ordinal);
        Assert.Throws<ExternalException>(() => ones(2).view(3));
        Assert.Throws<ExternalException>(() => ones(2)[5]);
        Assert.Throws<ExternalException>(() => ones(2).sum(3L));
        Assert.Throws<ExternalException>(() => cat([ones(2, 2), ones(3)]));
        Assert.Throws<ExternalException>(() => F.cross_entropy(ones(2, 3), tensor(new long[] { 0, 3 })));
        Assert.Throws<ExternalException>(() => ones(2).chunk(0));
        Assert.Throws<ExternalException>(() => ones(2).topk(3));
        Assert.Throws<ExternalException>(() => einsum("ij,jk->", ones(2)));
        Assert.Throws<ExternalException>(() => zeros(-1));
        Assert.Throws<ExternalException>(() => ones(1).backward());
        Assert.Throws<ExternalException>(() => ones(2, requires_grad: true).add_(1));
        Assert.Throws<ExternalException>(() => ones(2, int64).requires_grad = true);
        Assert.Throws<ExternalException>(() => set_num_threads(0));
        Assert.Throws<ArgumentException>(() => ones(3).index_add_(0, tensor(new[] { 0 }), ones(1), 1));
        Assert.Throws<ArgumentException>(() => F.one_hot(ones(2)));
        Assert.Throws<InvalidOperationException>(() => device(DeviceType.MPS));
        Assert.Throws<ArgumentException>(() => new Device("nonsense"));
    }

    [Fact]
    public void Devices_AreParsed()
    {
        Assert.Equal((DeviceType.CUDA, 1), (new Device("cuda:1").type, new Device("cuda:1").index));
        Assert.Equal("cuda:1", new Device("cuda:1").ToString());
        Assert.Equal(DeviceType.CPU, ((Device)"cpu").type);
        if (!cuda.is_available()) Assert.Throws<InvalidOperationException>(() => CUDA);
        Assert.Equal(cuda.is_available(), cuda.device_count() > 0);
    }

    [Fact]
    public void Scalars_ConvertBothWays()
    {
        Assert.Equal(3, ((Scalar)3.7).ToInt32());
        Assert.Equal(3.0f, ((Scalar)3).ToSingle());
        Assert.True(((Scalar)2).ToBoolean());
        Assert.Equal((Half)0.5, ((Scalar)(Half)0.5).ToHalf());
        Assert.Throws<OverflowException>(() => ((Scalar)300).ToByte());
    }

    [Fact]
    public void Limits_OfFloatingPointTypes_AreTheTypes()
    {
        Assert.Equal((double)float.MaxValue, finfo(float32).max);
        Assert.Equal((double)Half.MinValue, finfo(float16).min);
        Assert.Equal(BFloat16.MaxValue.ToSingle(), finfo(bfloat16).max);
        Assert.Equal((BFloat16.Epsilon.ToSingle(), BFloat16.MinNormal.ToSingle()), ((float)finfo(bfloat16).eps, (float)finfo(bfloat16).tiny));
        Assert.Throws<ArgumentException>(() => finfo(int64));
        Assert.Equal(float32, promote_types(int64, float32));
        Assert.False(can_cast(float32, int64));
    }

    [Fact]
    public void Version_IsLibtorchs() => Assert.Matches(@"^\d+\.\d+\.\d+", __version__);

    private static void Check<T>(Tensor tensor, ScalarType type, long[] shape, T[] values) where T : unmanaged
    {
        Assert.Equal(type, tensor.dtype);
        Assert.Equal(shape, tensor.shape);
        Assert.Equal(values, tensor.data<T>().ToArray());
    }
}

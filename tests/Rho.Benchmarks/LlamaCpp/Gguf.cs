using System.Buffers.Binary;
using System.Text;
using Rho.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Benchmarks.LlamaCpp;

/// <summary>How a model's matrices are stored; the values are ggml's.</summary>
internal enum GgufType
{
    F32 = 0,
    /// <summary>32 values as 8-bit integers with a float16 scale.</summary>
    Q8_0 = 8,
    BF16 = 30,
}

/// <summary>
/// Writes a Llama model as llama.cpp reads it (GGUF 3, github.com/ggml-org/ggml/blob/master/docs/gguf.md), without a tokenizer: what this comparison
/// needs and no more.
/// </summary>
internal sealed class Gguf
{
    private const int Alignment = 32;

    private readonly LanguageModel _model;
    private readonly GgufType _type;
    private readonly BinaryWriter _file;
    private readonly List<(string Name, ParameterSpan Span, GgufType Type)> _tensors = [];

    private Gguf(LanguageModel model, GgufType type, Stream file)
    {
        (_model, _type, _file) = (model, type, new BinaryWriter(file));
    }

    /// <param name="model">float32 on the CPU, without biases or scaled rotation; rows a multiple of 32</param>
    internal static void Write(string path, LanguageModel model, GgufType type)
    {
        using var file = new FileStream(path, FileMode.Create, FileAccess.Write, FileShare.None, 1 << 20);
        new Gguf(model, type, file).Write();
    }

    private void Write()
    {
        var config = _model.Config;
        Add("token_embd.weight", "model.embed_tokens.weight");
        for (var i = 0; i < config.Layers; i++)
        {
            foreach (var (theirs, ours) in ((string, string)[])[
                ("attn_norm", "input_layernorm"), ("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"), ("attn_v", "self_attn.v_proj"), ("attn_output", "self_attn.o_proj"),
                ("ffn_norm", "post_attention_layernorm"), ("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj")])
                Add($"blk.{i}.{theirs}.weight", $"model.layers.{i}.{ours}.weight");
        }

        Add("output_norm.weight", "model.norm.weight");
        // Without this tensor llama.cpp takes the embedding for it.
        if (!config.TiedEmbeddings) Add("output.weight", "lm_head.weight");

        Action[] keys =
        [
            () => Key("general.architecture", "llama"),
            () => Key("general.file_type", _type switch { GgufType.F32 => 0u, GgufType.Q8_0 => 7u, _ => 32u }),
            () => Key("llama.context_length", (uint)config.ContextLength),
            () => Key("llama.embedding_length", (uint)config.HiddenSize),
            () => Key("llama.feed_forward_length", (uint)config.IntermediateSize),
            () => Key("llama.block_count", (uint)config.Layers),
            () => Key("llama.attention.head_count", (uint)config.Heads),
            () => Key("llama.attention.head_count_kv", (uint)config.KeyValueHeads),
            () => Key("llama.attention.layer_norm_rms_epsilon", (float)config.NormEpsilon),
            () => Key("llama.rope.dimension_count", (uint)config.HeadSize),
            () => Key("llama.rope.freq_base", (float)config.RopeTheta),
            () => Key("llama.vocab_size", (uint)config.VocabularySize),
            () => Key("tokenizer.ggml.model", "none"),
        ];
        _file.Write("GGUF"u8);
        _file.Write(3u);
        _file.Write((ulong)_tensors.Count);
        _file.Write((ulong)keys.Length);
        foreach (var key in keys) key();

        ulong offset = 0;
        foreach (var (name, span, type) in _tensors)
        {
            Text(name);
            _file.Write((uint)span.Shape.Length);
            foreach (var size in span.Shape.Reverse()) _file.Write((ulong)size);
            _file.Write((uint)type);
            _file.Write(offset);
            offset += (ulong)Aligned(Bytes(type, span.Count));
        }

        Pad();
        foreach (var (_, span, type) in _tensors)
        {
            using var values = Values(span);
            Encode(values.data<float>().ToArray(), type);
            Pad();
        }

        _file.Flush();
    }

    private void Add(string name, string ours)
    {
        var span = _model.Layout[ours];
        _tensors.Add((name, span, span.Shape.Length == 1 ? GgufType.F32 : _type));
    }

    /// <summary>llama.cpp rotates neighbours, Hugging Face's layout a head's halves: rows of queries and keys change places within each head.</summary>
    private Tensor Values(ParameterSpan span)
    {
        using var flat = _model.Flat.narrow(0, span.Offset, span.Count);
        if (!span.Name.Contains(".q_proj", StringComparison.Ordinal) && !span.Name.Contains(".k_proj", StringComparison.Ordinal)) return flat.alias();
        using var scope = NewDisposeScope();
        return flat.view(-1, 2, _model.Config.HeadSize / 2, span.Shape[1]).transpose(1, 2).reshape(-1).MoveToOuterDisposeScope();
    }

    private void Encode(float[] values, GgufType type)
    {
        var bytes = new byte[Bytes(type, values.Length)];
        switch (type)
        {
            case GgufType.F32:
                Buffer.BlockCopy(values, 0, bytes, 0, bytes.Length);
                break;

            case GgufType.BF16:
                for (var i = 0; i < values.Length; i++)
                {
                    // To the nearest, ties to even; there are no NaNs.
                    var bits = BitConverter.SingleToUInt32Bits(values[i]);
                    BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(2 * i), (ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16));
                }

                break;

            default:
                for (var block = 0; block < values.Length / 32; block++)
                {
                    var x = values.AsSpan(block * 32, 32);
                    var y = bytes.AsSpan(block * 34, 34);
                    var most = 0f;
                    foreach (var value in x) most = Math.Max(most, Math.Abs(value));
                    var scale = most / 127;
                    BinaryPrimitives.WriteHalfLittleEndian(y, (Half)scale);
                    for (var i = 0; i < 32; i++) y[2 + i] = scale == 0 ? (byte)0 : (byte)(sbyte)MathF.Round(x[i] / scale);
                }

                break;
        }

        _file.Write(bytes);
    }

    private static long Bytes(GgufType type, long count) => type switch { GgufType.F32 => 4 * count, GgufType.BF16 => 2 * count, _ => count / 32 * 34 };

    private static long Aligned(long bytes) => (bytes + Alignment - 1) / Alignment * Alignment;

    private void Pad()
    {
        _file.Flush();
        var position = _file.BaseStream.Position;
        _file.Write(new byte[Aligned(position) - position]);
    }

    // The types of keys are strict: 4 is uint32, 6 float32, 8 a string.
    private void Key(string name, uint value)
    {
        Text(name);
        _file.Write(4u);
        _file.Write(value);
    }

    private void Key(string name, float value)
    {
        Text(name);
        _file.Write(6u);
        _file.Write(value);
    }

    private void Key(string name, string value)
    {
        Text(name);
        _file.Write(8u);
        Text(value);
    }

    private void Text(string text)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        _file.Write((ulong)bytes.Length);
        _file.Write(bytes);
    }
}

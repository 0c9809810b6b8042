using System.Security.Cryptography;
using System.Text;
using Rho.Tokenization;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>A checkpoint that scores tokens.</summary>
public sealed class ReferenceModel : IDistributionModel
{
    private const long LogitsBudgetBytes = 8 << 20;
    private const int MostTopK = 64;

    private readonly LanguageModel _model;

    /// <param name="model">becomes this object's own</param>
    /// <param name="fingerprint">of config and weights</param>
    private ReferenceModel(LanguageModel model, string fingerprint, string tokenizerFingerprint)
    {
        _model = model;
        Fingerprint = fingerprint;
        TokenizerFingerprint = tokenizerFingerprint;
    }

    public string Fingerprint { get; }
    public string TokenizerFingerprint { get; }
    public int VocabularySize => _model.Config.VocabularySize;
    public int ContextLength => _model.Config.ContextLength;
    public int MaxTopK => Math.Min(MostTopK, VocabularySize);
    public string Description => $"{_model.Config.ModelType}, {_model.Parameters / 1e6:0.0} M parameters, {_model.Dtype}, {_model.Device}";

    /// <summary>Loads a Hugging Face checkpoint folder with its tokenizer.</summary>
    /// <exception cref="RhoException">The checkpoint or its tokenizer is missing or broken, or they do not fit together.</exception>
    public static ReferenceModel Load(string checkpointDirectory, Device device, ComputeType compute)
    {
        var model = LanguageModel.Load(checkpointDirectory, device, compute);
        try
        {
            var tokenizer = Tokenizer.Load(checkpointDirectory);
            if (tokenizer.VocabularySize > model.Config.VocabularySize)
                throw new MismatchException($"{checkpointDirectory}: the tokenizer has {tokenizer.VocabularySize} tokens, the model only {model.Config.VocabularySize}");
            return new ReferenceModel(model, Identify(model, tokenizer.Fingerprint), tokenizer.Fingerprint);
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>Scores with a model in memory, such as the one in training.</summary>
    public static ReferenceModel Of(LanguageModel model, string tokenizerFingerprint) => new(model, Identify(model, tokenizerFingerprint), tokenizerFingerprint);

    private static string Identify(LanguageModel model, string tokenizerFingerprint)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var config = model.Config.ToJson(model.Dtype.ToString()).ToJsonString();
        hash.AppendData(Encoding.UTF8.GetBytes($"rho reference 1\n{config}\n{tokenizerFingerprint}\nkernels {Kernels.Epoch}\nlog-sum-exp float32\ndevice {model.Device.type}\n"));
        const long chunk = 4 << 20;
        for (long start = 0; start < model.Parameters; start += chunk)
        {
            using var guard = no_grad();
            using var scope = NewDisposeScope();
            hash.AppendData(model.Slice(start, Math.Min(chunk, model.Parameters - start)).cpu().bytes);
        }

        return "sha256:" + Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    public void Score(ReadOnlySpan<int> tokens, int sequences, int length, ReadOnlySpan<int> documents, Span<float> losses, CancellationToken cancellation) =>
        Score(tokens, sequences, length, documents, losses, [], 0, [], [], cancellation);

    public void Score(
        ReadOnlySpan<int> tokens, int sequences, int length, ReadOnlySpan<int> documents, Span<float> losses,
        Span<float> entropies, int topK, Span<int> topIds, Span<float> topLogProbabilities, CancellationToken cancellation)
    {
        if (length > ContextLength) throw new RhoException($"a sequence has {length} tokens, the reference's context has {ContextLength}");
        if (topK < 0 || topK > MaxTopK) throw new RhoException($"top-k is {topK}; this reference gives 0 to {MaxTopK}");
        if (tokens.Length != sequences * length || losses.Length != tokens.Length) throw new ArgumentException("tokens and losses must be [sequences, length]");
        if (!entropies.IsEmpty && entropies.Length != tokens.Length) throw new ArgumentException("entropies must be [sequences, length] or empty", nameof(entropies));
        if (topIds.Length != tokens.Length * topK || topLogProbabilities.Length != topIds.Length) throw new ArgumentException("top tokens must be [sequences, length, top-k]");
        using var mode = inference_mode();
        using var scope = NewDisposeScope();
        var rows = HeadRows.Of(tokens, sequences, length, documents);
        losses.Fill(float.NaN);
        entropies.Fill(float.NaN);
        topIds.Clear();
        topLogProbabilities.Fill(float.NaN);
        if (rows.Positions.Length == 0) return;
        var context = AttentionContext.For(_model.Config, sequences, length, documents);
        var x = Transformer.Embed(_model.Embedding, tensor(tokens.ToArray(), [tokens.Length], device: _model.Device));
        foreach (var layer in _model.Layers)
        {
            cancellation.ThrowIfCancellationRequested();
            var next = Transformer.Block(_model.Config, layer, x, sequences, context);
            x.Dispose();
            x = next;
        }

        var hidden = Kernels.RmsNorm(x.index_select(0, tensor(rows.Positions, device: _model.Device)), _model.FinalNorm, _model.Config.NormEpsilon);
        using var head = new HeadLoss(hidden, _model.Head, rows.Targets, LogitsBudgetBytes);
        var distribution = entropies.IsEmpty && topK == 0 ? null : new HeadDistribution(rows.Targets.Length, !entropies.IsEmpty, topK);
        rows.Spread<float>(head.Forward(keepLogits: false, distribution), losses);
        if (distribution is null) return;
        if (!entropies.IsEmpty) rows.Spread<float>(distribution.Entropies, entropies);
        rows.Spread<int>(distribution.TopIds, topIds, topK);
        rows.Spread<float>(distribution.TopLogProbabilities, topLogProbabilities, topK);
    }

    public void Dispose() => _model.Dispose();
}

/// <summary>The positions that predict a token: the row of the hidden state, and the token that comes after it.</summary>
/// <param name="Positions">index into [sequences * length] of the predicting position</param>
/// <param name="Targets">the token at the next position</param>
internal sealed record HeadRows(long[] Positions, long[] Targets)
{
    internal static HeadRows Of(ReadOnlySpan<int> tokens, int sequences, int length, ReadOnlySpan<int> documents)
    {
        var positions = new long[sequences * Math.Max(0, length - 1)];
        var targets = new long[positions.Length];
        var count = 0;
        for (var i = 0; i < sequences; i++)
        {
            for (var t = 1; t < length; t++)
            {
                var at = (i * length) + t;
                if (!documents.IsEmpty && (documents[at] < 0 || documents[at] != documents[at - 1])) continue;
                positions[count] = at - 1;
                targets[count++] = tokens[at];
            }
        }

        return new HeadRows(positions[..count], targets[..count]);
    }

    /// <summary>Values of rows to the positions of their targets.</summary>
    /// <param name="rows">[rows, width]</param>
    /// <param name="values">[sequences * length, width]</param>
    internal void Spread<T>(ReadOnlySpan<T> rows, Span<T> values, int width = 1)
    {
        for (var i = 0; i < Positions.Length; i++) rows.Slice(i * width, width).CopyTo(values[(((int)Positions[i] + 1) * width)..]);
    }
}

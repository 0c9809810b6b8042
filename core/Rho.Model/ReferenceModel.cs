using System.Security.Cryptography;
using System.Text;
using Rho.Formats;
using Rho.Model.Scoring;
using Rho.Tokenization;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>A checkpoint that scores tokens.</summary>
public sealed class ReferenceModel : IReferenceModel
{
    private const int MostTopK = 64;

    /// <summary>Raised when a change to the computation changes losses; part of the fingerprint.</summary>
    private const int KernelEpoch = 4;

    private readonly LanguageModel _model;
    private readonly int _passTokens;
    private readonly ScoringForward _forward;
    private readonly OutputHead _head;

    /// <param name="model">becomes this object's own</param>
    /// <param name="fingerprint">of config and weights</param>
    private ReferenceModel(LanguageModel model, string fingerprint, string tokenizerFingerprint, int? passTokens = null)
    {
        _model = model;
        _passTokens = passTokens ?? ScoringForward.PassTokens(model.Device);
        _forward = new ScoringForward(model);
        _head = new OutputHead(model[model.Network.Head], model.Network.LogitsCap, model.Device.type == DeviceType.CPU ? 8 << 20 : 128 << 20);
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

    /// <summary>With passes of another size.</summary>
    internal static ReferenceModel InPassesOf(int passTokens, LanguageModel model) => new(model, "none", "none", passTokens);

    /// <summary>Bytes of the buffers that passes of tokens go through.</summary>
    internal long ActivationBytes => _forward.ActivationBytes + _head.Bytes;

    /// <summary>Bytes that keys and values of cut sequences took in the last batch.</summary>
    internal long KeyValueBytes => _forward.KeyValueBytes;

    private static string Identify(LanguageModel model, string tokenizerFingerprint)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var config = model.Config.ToJson(model.Dtype.ToString()).ToJsonString();
        hash.AppendData(Encoding.UTF8.GetBytes($"rho reference 1\n{config}\n{tokenizerFingerprint}\nkernels {KernelEpoch}\nlog-sum-exp float32\ndevice {model.Device.type}\n"));
        const long chunk = 4 << 20;
        for (long start = 0; start < model.Parameters; start += chunk)
        {
            using var guard = no_grad();
            using var scope = NewDisposeScope();
            hash.AppendData(model.Slice(start, Math.Min(chunk, model.Parameters - start)).cpu().bytes);
        }

        return "sha256:" + Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    public void Score(ReadOnlySpan<int> tokens, ReadOnlySpan<int> lengths, ReadOnlySpan<int> documents, TokenScores scores, CancellationToken cancellation)
    {
        var total = 0L;
        foreach (var length in lengths)
        {
            if (length > ContextLength) throw new RhoException($"a sequence has {length} tokens, the reference's context has {ContextLength}");
            total += length;
        }

        if (scores.TopK > MaxTopK) throw new RhoException($"top-k is {scores.TopK}; this reference gives 0 to {MaxTopK}");
        if (tokens.Length != total || scores.Tokens != total || (!documents.IsEmpty && documents.Length != total)) throw new ArgumentException("tokens, documents and scores must be as many as the lengths say");
        scores.Clear();
        using var mode = inference_mode();
        using var scope = NewDisposeScope();
        var plan = ScoringPlan.Of(lengths, documents, _passTokens);
        if (plan.Visibility.Longest < 2) return;
        _forward.Prepare(plan);
        try
        {
            var rows = PredictingRows.Of(tokens, lengths, documents);
            var from = 0;
            foreach (var pass in plan.Passes)
            {
                var hidden = _forward.Run(plan, pass, tokens.Slice(pass.Start, pass.Count), cancellation);
                var of = rows.Within(ref from, pass.Start, pass.Count);
                if (of.Positions.Length > 0) ScoreRows(hidden, of, pass.Start, scores);
            }
        }
        finally
        {
            _forward.Finish();
        }
    }

    /// <param name="hidden">of a pass. [P, hidden]</param>
    /// <param name="rows">the pass's, counted in the batch</param>
    private void ScoreRows(Tensor hidden, PredictingRows rows, int start, TokenScores scores)
    {
        using var scope = NewDisposeScope();
        var positions = Array.ConvertAll(rows.Positions, position => position - start);
        var normed = TensorOps.RmsNorm(hidden.index_select(0, tensor(positions, device: _model.Device)), _model[_model.Network.FinalNorm.Weight], _model.Network.FinalNorm);
        var found = new HeadScores(rows.Targets.Length, scores.Entropies.Length > 0, scores.TopK);
        _head.Score(normed, rows.Targets, found);
        rows.Spread(found.Tokens, scores);
    }

    public void Dispose()
    {
        _forward.Dispose();
        _head.Dispose();
        _model.Dispose();
    }
}

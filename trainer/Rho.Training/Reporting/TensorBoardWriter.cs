using System.Buffers.Binary;
using System.Numerics;
using System.Text;

namespace Rho.Training;

/// <summary>
/// Scalars as a TensorBoard event file: TFRecord frames (length, masked CRC-32C, data, masked CRC-32C) of tensorflow.Event messages,
/// encoded here since only three of their fields are used.
/// </summary>
internal sealed class TensorBoardWriter : IDisposable
{
    private readonly AppendLog _file;
    private readonly IReadOnlyList<string> _corpora;

    /// <param name="step">Steps done before.</param>
    /// <param name="corpora">Names of data.corpora, in their order.</param>
    public TensorBoardWriter(string directory, long step, IReadOnlyList<string> corpora)
    {
        _corpora = corpora;
        Directory.CreateDirectory(directory);
        var seconds = DateTimeOffset.UtcNow.ToUnixTimeSeconds();
        var path = Path.Combine(directory, $"events.out.tfevents.{seconds:D10}.rho.{Environment.ProcessId}.{step}");
        _file = AppendLog.Open(path);
        // A resumed run goes on in a new file; the version record says that steps after it replace older ones.
        WriteEvent(0, payload => Field(payload, 3, Encoding.UTF8.GetBytes("brain.Event:2")));
    }

    /// <summary>Why records are still in memory; null where all are in the file.</summary>
    public string? Problem => _file.Problem;

    /// <summary>The scalars of an event: every number of a step, an evaluation or a checkpoint.</summary>
    public void Write(TrainingEvent e)
    {
        var scalars = Scalars(e).Where(scalar => scalar.Value is { } value && double.IsFinite(value)).ToList();
        if (scalars.Count == 0) return;
        WriteEvent(e.Step, payload =>
        {
            using var summary = new MemoryStream();
            Span<byte> number = stackalloc byte[4];
            foreach (var (tag, value) in scalars)
            {
                using var item = new MemoryStream();
                Field(item, 1, Encoding.UTF8.GetBytes(tag));
                item.WriteByte((2 << 3) | 5);
                BinaryPrimitives.WriteSingleLittleEndian(number, (float)value!.Value);
                item.Write(number);
                Field(summary, 1, item.ToArray());
            }

            Field(payload, 5, summary.ToArray());
        });
    }

    private static IEnumerable<(string Tag, double? Value)> Indexed(string prefix, IReadOnlyList<string> names, IEnumerable<double>? values) =>
        (values ?? []).Select((value, i) => (prefix + names[i], (double?)value));

    private IEnumerable<(string Tag, double? Value)> Scalars(TrainingEvent e) => e switch
    {
        StepFinished s =>
        [
            ("loss/trained", s.Loss), ("loss/all", s.AllLoss), ("loss/selected", s.SelectedLoss), ("loss/unselected", s.UnselectedLoss), ("loss/reference", s.ReferenceLoss),
            ("selection/ratio", s.Ratio), ("selection/share", s.SelectedShare), ("selection/trained_share", s.TrainedShare), ("selection/threshold", s.Threshold), ("selection/negative_excess", s.NegativeExcessShare),
            .. Indexed("selection/excess_", ["p10", "p50", "p90"], s.ExcessQuantiles?.Select(value => (double)value)),
            .. Indexed("selection/share_", _corpora, s.SelectedShareByCorpus),
            ("selection/batches_without_reference", s.BatchesWithoutReference), ("selection/tokens", s.SelectedTokens),
            ("router/balance", s.RouterBalance), ("router/busiest_expert_share", s.BusiestExpertShare),
            ("optimizer/gradient_norm", s.GradientNorm), ("optimizer/gradient_cosine", s.GradientCosine), ("optimizer/gradient_norm_ratio", s.GradientNormRatio),
            ("optimizer/learning_rate", s.LearningRate), ("optimizer/skipped", s.Skipped is null ? 0 : 1),
            ("speed/tokens_per_second", s.TokensPerSecond), ("speed/flops_share", s.FlopsShare), ("speed/step_ms", s.Milliseconds), ("speed/training_ms", s.TrainingMilliseconds),
            ("speed/reference_ms", s.ReferenceMilliseconds), ("speed/score_wait_ms", s.ScoreWaitMilliseconds), ("speed/data_wait_ms", s.DataWaitMilliseconds),
            ("speed/checkpoint_stall_ms", s.CheckpointMilliseconds),
        ],
        EvaluationFinished v => v.Losses.Select(loss => ($"heldout/{loss.Key}", (double?)loss.Value)),
        CheckpointWritten c => [("selection/mask_overlap", c.MaskOverlap), ("speed/checkpoint_ms", c.Milliseconds)],
        _ => [],
    };

    private void WriteEvent(long step, Action<MemoryStream> fill)
    {
        using var payload = new MemoryStream();
        Span<byte> number = stackalloc byte[8];
        payload.WriteByte((1 << 3) | 1); // wall_time
        BinaryPrimitives.WriteDoubleLittleEndian(number, DateTimeOffset.UtcNow.ToUnixTimeMilliseconds() / 1000.0);
        payload.Write(number);
        payload.WriteByte(2 << 3); // step
        Varint(payload, (ulong)step);
        fill(payload);

        var data = payload.ToArray();
        using var record = new MemoryStream();
        BinaryPrimitives.WriteUInt64LittleEndian(number, (ulong)data.Length);
        record.Write(number);
        WriteChecksum(record, number);
        record.Write(data);
        WriteChecksum(record, data);
        _file.Write(record.ToArray());
    }

    private static void WriteChecksum(MemoryStream record, ReadOnlySpan<byte> data)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, MaskedCrc(data));
        record.Write(bytes);
    }

    internal static uint MaskedCrc(ReadOnlySpan<byte> data)
    {
        var crc = uint.MaxValue;
        foreach (var value in data) crc = BitOperations.Crc32C(crc, value);
        return BitOperations.RotateRight(~crc, 15) + 0xa282ead8;
    }

    private static void Field(MemoryStream stream, int number, byte[] bytes)
    {
        stream.WriteByte((byte)((number << 3) | 2));
        Varint(stream, (ulong)bytes.Length);
        stream.Write(bytes);
    }

    private static void Varint(MemoryStream stream, ulong value)
    {
        for (; value >= 0x80; value >>= 7) stream.WriteByte((byte)(value | 0x80));
        stream.WriteByte((byte)value);
    }

    public void Dispose() => _file.Dispose();
}

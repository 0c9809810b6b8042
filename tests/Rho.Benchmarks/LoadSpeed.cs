using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Rho.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Benchmarks;

/// <summary>Loading and writing a checkpoint: speed beside that of reading the file and doing nothing with it, and the memory that loading takes.</summary>
internal static partial class LoadSpeed
{
    internal static Command Command()
    {
        var megabytes = new Option<int>("--megabytes") { Description = "Size of the checkpoint in float32", HelpName = "N", DefaultValueFactory = _ => 1000 };
        var rounds = new Option<int>("--rounds") { Description = "Processes per figure; the median counts", HelpName = "N", DefaultValueFactory = _ => 3 };
        var command = new Command("load", "Speed and memory of loading checkpoints") { megabytes, rounds };
        command.SetAction(result => Run(result.GetValue(megabytes), result.GetValue(rounds)));
        command.Add(Worker());
        return command;
    }

    private static int Run(int megabytes, int rounds)
    {
        var folder = Directory.CreateTempSubdirectory("rho-bench-").FullName;
        try
        {
            Console.WriteLine("| file | loaded as | file in memory already | load, MB/s | bare reading, MB/s | memory, shares of what is loaded |");
            Console.WriteLine("| --- | --- | --- | ---: | ---: | ---: |");
            foreach (var stored in new[] { ComputeType.Float32, ComputeType.BFloat16 })
            {
                var checkpoint = Path.Combine(folder, stored.ToString());
                Make(checkpoint, megabytes, stored);
                foreach (var compute in new[] { stored, ComputeType.Float32 }.Distinct())
                {
                    foreach (var cold in new[] { true, false })
                    {
                        var figures = Enumerable.Range(0, rounds).Select(_ => Measuring.RunForJson(Environment.ProcessPath!, ["load", "worker", checkpoint, $"{compute}", $"{cold}"])).ToList();
                        double Median(string name) => Measuring.Median(figures.Select(figure => figure.GetProperty(name).GetDouble()));
                        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"| {stored} | {compute} | {(cold ? "no" : "yes")} | {Median("load"):0} | {Median("read"):0} | {Median("memory"):0.000} |"));
                    }
                }
            }

            return 0;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static void Make(string directory, int megabytes, ComputeType type)
    {
        const int Hidden = 1024, Intermediate = 2816, Vocabulary = 16_000;
        const long PerLayer = (4L * Hidden * Hidden) + (3L * Hidden * Intermediate);
        var config = new ModelConfig
        {
            VocabularySize = Vocabulary,
            HiddenSize = Hidden,
            IntermediateSize = Intermediate,
            Layers = (int)Math.Max(1, ((megabytes * 250_000L) - (2L * Vocabulary * Hidden)) / PerLayer),
            Heads = 16,
            KeyValueHeads = 16,
            HeadSize = 64,
            ContextLength = 64,
        };
        using var model = LanguageModel.Create(config, 0, CPU, type);
        model.Save(directory, tokenizer: null);
    }

    private static Command Worker()
    {
        var checkpoint = new Argument<string>("CHECKPOINT");
        var compute = new Argument<ComputeType>("TYPE");
        var cold = new Argument<bool>("COLD");
        var command = new Command("worker", "One figure, measured in this process") { checkpoint, compute, cold };
        command.Hidden = true;
        command.SetAction(result => Measure(result.GetValue(checkpoint)!, result.GetValue(compute), result.GetValue(cold)));
        return command;
    }

    private static int Measure(string checkpoint, ComputeType compute, bool cold)
    {
        using (ones(64, 64).to(ScalarType.BFloat16)) { }
        var weights = Directory.GetFiles(checkpoint, "*.safetensors");
        long bytes = weights.Sum(path => new FileInfo(path).Length);
        if (cold) Forget(weights);
        else Read(weights);
        var before = StatusBytes("VmRSS:");
        var begin = Stopwatch.GetTimestamp();
        using var model = LanguageModel.Load(checkpoint, CPU, compute);
        var load = Stopwatch.GetElapsedTime(begin).TotalSeconds;
        var memory = StatusBytes("VmHWM:") - before;
        if (cold) Forget(weights);
        begin = Stopwatch.GetTimestamp();
        Read(weights);
        var read = Stopwatch.GetElapsedTime(begin).TotalSeconds;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{{\"load\": {bytes / 1e6 / load}, \"read\": {bytes / 1e6 / read}, \"memory\": {(double)memory / (model.Parameters * model.Dtype.ElementSize())}}}"));
        return 0;
    }

    private static void Read(string[] paths)
    {
        var buffer = new byte[16 << 20];
        foreach (var path in paths)
        {
            using var file = File.OpenHandle(path);
            long position = 0;
            for (int count; (count = RandomAccess.Read(file, buffer, position)) > 0; position += count) { }
        }
    }

    /// <summary>Takes files out of the system's page cache.</summary>
    private static void Forget(string[] paths)
    {
        const int DontNeed = 4;
        foreach (var path in paths)
        {
            using var file = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite);
            RandomAccess.FlushToDisk(file);
            if (Advise((int)file.DangerousGetHandle(), 0, 0, DontNeed) != 0) throw new RhoException($"{path}: the system keeps it in memory");
        }
    }

    private static long StatusBytes(string name) =>
        long.Parse(File.ReadLines("/proc/self/status").First(line => line.StartsWith(name, StringComparison.Ordinal)).Split([' ', '\t'], StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) * 1024;

    [LibraryImport("libc", EntryPoint = "posix_fadvise")]
    private static partial int Advise(int file, long offset, long length, int advice);
}

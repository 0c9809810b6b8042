using System.Diagnostics;
using System.Globalization;
using System.Text.Json;

namespace Rho.Benchmarks;

/// <summary>What a measuring process reports of its steps, each figure of a step: in the median, and of processor time the mean; the peak is the process's.</summary>
internal readonly record struct Figure(double TokensPerSecond, double StepMilliseconds, double ProcessorMilliseconds, double PeakMegabytes);

/// <summary>Every figure comes from a process of its own, which prints it as a line of JSON.</summary>
internal static class Measuring
{
    /// <summary>Within such a process: runs the step twice, then measured, and prints the line.</summary>
    /// <param name="tokens">that one step handles or makes</param>
    internal static void Report(string mode, int tokens, int steps, Action step)
    {
        for (var i = 0; i < 2; i++) step();
        var times = new double[steps];
        var processor = Environment.CpuUsage.TotalTime;
        for (var i = 0; i < steps; i++)
        {
            var begin = Stopwatch.GetTimestamp();
            step();
            times[i] = Stopwatch.GetElapsedTime(begin).TotalMilliseconds;
        }

        processor = Environment.CpuUsage.TotalTime - processor;
        var median = Median(times);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{{\"mode\": \"{mode}\", \"tokens_per_second\": {tokens / median * 1e3:0.0}, \"step_ms\": {median:0.00}, \"cpu_ms\": {processor.TotalMilliseconds / steps:0.00}, \"peak_mb\": {PeakMegabytes():0}}}"));
    }

    /// <summary>Runs a process that measures one figure.</summary>
    /// <exception cref="RhoException">It failed or printed no figure.</exception>
    internal static Figure Run(string program, IEnumerable<string> arguments, params (string Name, string Value)[] environment)
    {
        var json = RunForJson(program, arguments, environment);
        double Number(string name) => json.GetProperty(name).GetDouble();
        return new Figure(Number("tokens_per_second"), Number("step_ms"), Number("cpu_ms"), Number("peak_mb"));
    }

    /// <summary>The object that a program prints as its last line.</summary>
    /// <exception cref="RhoException">It failed or printed nothing.</exception>
    internal static JsonElement RunForJson(string program, IEnumerable<string> arguments, params (string Name, string Value)[] environment)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, UseShellExecute = false };
        start.Environment["OMP_WAIT_POLICY"] = "PASSIVE";
        start.Environment["OMP_NUM_THREADS"] = $"{Environment.ProcessorCount}";
        foreach (var (name, value) in environment) start.Environment[name] = value;
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        if (process.ExitCode != 0 || output.Split('\n', StringSplitOptions.RemoveEmptyEntries) is not [.., var last])
            throw new RhoException($"{program} measured nothing and exited with {process.ExitCode}; what it wrote is above");
        using var json = JsonDocument.Parse(last);
        return json.RootElement.Clone();
    }

    internal static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToList();
        return sorted[sorted.Count / 2];
    }

    private static double PeakMegabytes()
    {
        var line = File.ReadLines("/proc/self/status").First(line => line.StartsWith("VmHWM", StringComparison.Ordinal));
        return double.Parse(line.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) / 1024;
    }
}

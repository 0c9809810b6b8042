using System.Diagnostics;
using System.Reflection;

namespace Rho.TestSupport;

/// <summary>A project's numerical tests once more, in a process that uses less than this processor has: what libraries round otherwise there is seen here.</summary>
internal static class OtherProcessors
{
    /// <summary>As on a processor that has AVX2 and neither AVX-512 nor bfloat16.</summary>
    public const string Avx2 = "DOTNET_EnableAVX512=0 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2";

    /// <summary>One library at a time, so that kernels for different processors meet.</summary>
    public static TheoryData<string> Limits => [Avx2, "DOTNET_EnableAVX512=0", "ATEN_CPU_CAPABILITY=avx2", "ATEN_CPU_CAPABILITY=default", "ONEDNN_MAX_CPU_ISA=AVX2", "MKL_ENABLE_INSTRUCTIONS=AVX2"];

    /// <param name="limit">environment variables, NAME=VALUE each</param>
    /// <param name="filter">the runner's arguments that choose tests; slow ones and those that call this are left out</param>
    public static async Task PassAsync(string limit, params string[] filter)
    {
        var program = Path.Combine(AppContext.BaseDirectory, Assembly.GetExecutingAssembly().GetName().Name!);
        var start = new ProcessStartInfo(program, [.. filter, "-trait-", "Category=Slow", "-class-", "*.OtherProcessorTests"]) { RedirectStandardOutput = true, UseShellExecute = false };
        foreach (var setting in limit.Split(' ').Select(part => part.Split('='))) start.Environment[setting[0]] = setting[1];
        using var process = Process.Start(start)!;
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        patience.CancelAfter(TimeSpan.FromMinutes(10));
        try
        {
            var output = await process.StandardOutput.ReadToEndAsync(patience.Token);
            await process.WaitForExitAsync(patience.Token);
            Assert.True(process.ExitCode == 0, $"with {limit}:\n{output}");
            Assert.DoesNotContain("Total: 0", output, StringComparison.Ordinal);
        }
        finally
        {
            if (!process.HasExited) process.Kill(entireProcessTree: true);
        }
    }
}

using System.CommandLine;
using Rho;
using Rho.Benchmarks;
using Rho.Benchmarks.Experiment;
using Rho.Benchmarks.LlamaCpp;
using Rho.Benchmarks.Scoring;
using Peer = Rho.Benchmarks.TorchSharpPeer;

// ./rho bench runs this. Without a command: speed and memory side by side with plain programs.
var root = new RootCommand("Measures Rho. Without a command: training, scoring and generation side by side with plain TorchSharp and PyTorch programs, each figure from a process of its own.")
{
    ServingLoad.Command(),
    ScoringSpeed.Command(),
    LlamaComparison.Command(),
    WeightFormats.Command(),
    TokenizerSpeed.Command(),
    CorpusSpeed.Command(),
    SlmExperiment.Command(),
    QuickstartSeeds.Command(),
    LoadSpeed.Command(),
    KernelSpeed.Command(),
    Savings.Command(),
    Worker.Command(),
    Peer.Program.Command(),
    Peer.Check.Command(),
};
PeerComparison.AddTo(root);
try
{
    return await root.Parse(args).InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false });
}
catch (RhoException exception)
{
    Console.Error.WriteLine($"rho: {exception.Message}");
    return 1;
}

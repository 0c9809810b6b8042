using System.CommandLine;
using System.CommandLine.Parsing;
using Rho.Cli.Terminal;
using Rho.Client;
using Rho.Formats;
using Rho.Training;

namespace Rho.Cli.Commands;

/// <summary>rho score: reference losses of a corpus as files.</summary>
internal static class ScoreCommand
{
    public static Command Create()
    {
        var corpus = new Option<string>("--corpus") { Description = "Folder of the corpus", HelpName = "DIR", Required = true };
        var output = new Option<string>("--out") { Description = "Folder for the score files; what it holds already is kept", HelpName = "DIR", Required = true };
        var encoding = new Option<string>("--encoding") { Description = "f16, f32 or log8 (8-bit logarithmic code)", DefaultValueFactory = _ => "f16" };
        encoding.AcceptOnlyFromAmong("f16", "f32", "log8");
        var entropy = new Option<bool>("--entropy") { Description = "Also the entropy of the reference's prediction of each token (for selection by reference_entropy)" };
        var topK = new Option<int>("--top-k") { Description = "Also the K likeliest tokens at each position with their log-probabilities (for selection by divergence); 6 K bytes a token", HelpName = "K" };
        var model = new Option<string?>("--model") { Description = "Checkpoint to score with in this process, such as an earlier one of a run, instead of scorers", HelpName = "DIR" };
        var dtype = ComputeTypeOption.Create();
        var scorers = new ScorerAddressOptions();
        var command = new ExampleCommand(
            "score", "Write the reference losses of a corpus to score files; an interrupted call goes on where it was.",
            "rho score --corpus corpus --scorer localhost:5001,localhost:5011 --out scores",
            "rho score --corpus corpus --scorer dns:///rho-scorer:5001 --out scores --encoding log8",
            "rho score --corpus corpus --scorer localhost:5001 --out scores --top-k 8",
            "rho score --corpus corpus --model slm/checkpoints/step-00001000 --out history") { corpus, output, encoding, entropy, topK, model, dtype };
        scorers.AddTo(command);
        command.Validators.Add(result =>
        {
            if (result.GetValue(model) is null == !scorers.AreGiven(result)) result.AddError("name what scores: --scorer or --model");
        });
        command.SetAction(async (result, cancellation) =>
        {
            var opened = Corpus.Open(result.GetValue(corpus)!);
            var directory = result.GetValue(output)!;
            if (result.GetValue(model) is { } checkpoint)
            {
                var format = new ScoreFormat(LossCodec.Parse(result.GetValue(encoding)!), result.GetValue(entropy), result.GetValue(topK));
                using var line = new ProgressLine("scoring", "tokens");
                var total = opened.Sequences * opened.SequenceLength;
                await CheckpointScoring.RunAsync(opened, checkpoint, directory, format, ComputeTypeOption.Read(result, dtype, [checkpoint]), new InlineProgress<long>(done => line.Report(done, total)), cancellation);
                line.Complete($"{Quantities.Short(opened.Tokens)} tokens in {directory}");
                return 0;
            }

            await using var client = new ScorerClient(scorers.Read(result) with
            {
                TokenizerFingerprint = opened.TokenizerFingerprint,
                Encoding = LossCodec.Parse(result.GetValue(encoding)!),
                Entropy = result.GetValue(entropy),
                TopK = result.GetValue(topK),
            });
            using var progress = new ProgressLine("scoring", "tokens");
            var fromCache = 0L;
            await CorpusScoring.RunAsync(opened, client, directory, new InlineProgress<CorpusScoringProgress>(state =>
            {
                fromCache = state.TokensFromCache;
                progress.Report(state.TokensDone, state.TokensTotal, $"shard {state.ShardsDone} of {state.Shards}{(fromCache > 0 ? $", {Quantities.Short(fromCache)} from cache" : "")}");
            }), cancellation: cancellation);
            progress.Complete($"{Quantities.Short(opened.Tokens)} tokens in {directory}{(fromCache > 0 ? $", {Quantities.Short(fromCache)} from the scorers' cache" : "")}");
            return 0;
        });
        return command;
    }
}

/// <summary>Where scorers are, and how to prove who asks.</summary>
internal sealed class ScorerAddressOptions
{
    private readonly Option<string> _scorer = new("--scorer") { Description = "Scorers: host:port, http(s)://host:port, or dns:///name:port for all addresses of a name", HelpName = "ADDRESS[,ADDRESS...]" };
    private readonly Option<string?> _authority = new("--tls-authority") { Description = "Certificates that the scorers' ones come from (PEM)", HelpName = "FILE" };
    private readonly Option<string?> _certificate = new("--tls-certificate") { Description = "The client's own certificate (PEM), for mutual TLS", HelpName = "FILE" };
    private readonly Option<string?> _key = new("--tls-key") { Description = "The certificate's key (PEM)", HelpName = "FILE" };

    public void AddTo(Command command)
    {
        foreach (var option in (Option[])[_scorer, _authority, _certificate, _key]) command.Add(option);
    }

    public bool AreGiven(CommandResult result) => result.GetValue(_scorer) is not null;

    /// <summary>The API key comes from the environment: a command line is for all to see.</summary>
    public ScorerClientOptions Read(ParseResult result) => new()
    {
        Addresses = result.GetValue(_scorer)!.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries),
        CertificateAuthority = result.GetValue(_authority),
        ClientCertificate = result.GetValue(_certificate),
        ClientKey = result.GetValue(_key),
        ApiKey = Environment.GetEnvironmentVariable("RHO_API_KEY"),
    };
}

using System.ComponentModel;
using Rho.Hosting;
using Rho.Model;
using Rho.Model.Inference;
using Rho.Serving.Engine;
using Rho.Torch;

namespace Rho.Serving;

/// <summary>A checkpoint folder and the name it is served under.</summary>
public sealed record ModelSource(string Name, string Path)
{
    /// <summary>Reads "PATH" or "NAME=PATH"; the folder's name is the default.</summary>
    public static ModelSource Parse(string text)
    {
        var equals = text.IndexOf('=', StringComparison.Ordinal);
        var path = equals > 0 ? text[(equals + 1)..] : text;
        var name = equals > 0 ? text[..equals] : System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(path)));
        return new ModelSource(name, path);
    }
}

/// <summary>What the inference endpoint serves, and within which bounds.</summary>
public sealed record ServingOptions
{
    /// <summary>Ports, TLS, keys, logs and drain.</summary>
    public RhoHostOptions Host { get; init; } = new() { Service = "rho-serving" };

    /// <summary>Models to load at the start.</summary>
    public IReadOnlyList<ModelSource> Models { get; init; } = [];

    /// <summary>A folder of which every checkpoint folder is served under its name: loaded when it appears, swapped when it changes, unloaded when it goes.</summary>
    [Description("Folder whose checkpoint folders are served as they appear and change")]
    public string? WatchFolder { get; init; }

    /// <summary>How often <see cref="WatchFolder"/> is looked at. Default 2 s.</summary>
    public TimeSpan WatchInterval { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>Where models compute; "auto" takes a GPU where there is one. Default auto.</summary>
    [Description(Devices.Names)]
    public string Device { get; init; } = "auto";

    /// <summary>Number type of weights and cache. Default auto: bfloat16 where the machine computes with it, else float32.</summary>
    [Description("Number type of weights and cache")]
    public ComputeType Compute { get; init; } = ComputeType.Auto;

    /// <summary>8-bit weights on the CPU; keys, values and the rest as <see cref="Compute"/> says.</summary>
    [Description("8-bit weights (CPU)")]
    public WeightFormat Weights { get; init; }

    /// <summary>Bytes of keys and values per model. Default 1 GiB.</summary>
    [Description("Memory for keys and values of each model")]
    public long CacheBytes { get; init; } = 1L << 30;

    [Description("Threads that compute on the CPU; 0 takes one per processor")]
    public int Threads { get; init; }

    public EngineOptions Engine { get; init; } = new();

    /// <summary>Whether LoadModel and UnloadModel are served. Default false: they read any folder that the server can.</summary>
    [Description("Serve LoadModel and UnloadModel")]
    public bool AllowModelChanges { get; init; }

    /// <summary>Web origins that may call the HTTP face from a browser, or "*". Default none.</summary>
    [Description("Web origin that may call from a browser, or *")]
    public IReadOnlyList<string> CorsOrigins { get; init; } = [];

    [Description("Also show metrics under vLLM's names")]
    public bool VllmMetrics { get; init; }

    /// <summary>A client that takes nothing of its stream for so long is cut off. Default 60 s.</summary>
    public TimeSpan ReaderTimeout { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Throws <see cref="RhoException"/> that names every setting that cannot work.</summary>
    public void Validate()
    {
        var errors = Errors().ToList();
        if (errors.Count > 0) throw new RhoException(string.Join("; ", errors));
    }

    private IEnumerable<string> Errors()
    {
        if (Models.Count == 0 && WatchFolder is null && !AllowModelChanges) yield return $"{nameof(Models)}: there is nothing to serve; name a checkpoint folder, or a folder to watch";
        foreach (var group in Models.GroupBy(model => model.Name, StringComparer.Ordinal).Where(group => group.Count() > 1))
            yield return $"{nameof(Models)}: {group.Count()} models are named {group.Key}; name them with NAME=PATH";
        if (WatchFolder is not null && !Directory.Exists(WatchFolder)) yield return $"{nameof(WatchFolder)}: no folder {WatchFolder}";
        if (WatchInterval <= TimeSpan.Zero) yield return $"{nameof(WatchInterval)}: {WatchInterval} is not above 0";
        if (!Devices.IsName(Device)) yield return $"{nameof(Device)}: '{Device}' is none; use {Devices.Names}";
        if (CacheBytes <= 0) yield return $"{nameof(CacheBytes)}: {CacheBytes} is not above 0";
        if (Threads < 0) yield return $"{nameof(Threads)}: {Threads} is negative; 0 takes one per processor";
        if (Engine.MaxSequences < 1) yield return $"{nameof(Engine)}.{nameof(Engine.MaxSequences)}: {Engine.MaxSequences} is not at least 1";
        if (Engine.MaxStepTokens < Engine.MaxSequences) yield return $"{nameof(Engine)}.{nameof(Engine.MaxStepTokens)}: {Engine.MaxStepTokens} is less than {nameof(Engine.MaxSequences)}, {Engine.MaxSequences}";
        if (Engine.MaxWaitingRequests < 1) yield return $"{nameof(Engine)}.{nameof(Engine.MaxWaitingRequests)}: {Engine.MaxWaitingRequests} is not at least 1";
        if (Engine.MaxRequestsPerClient < 0) yield return $"{nameof(Engine)}.{nameof(Engine.MaxRequestsPerClient)}: {Engine.MaxRequestsPerClient} is negative; 0 is no limit";
        if (ReaderTimeout <= TimeSpan.Zero) yield return $"{nameof(ReaderTimeout)}: {ReaderTimeout} is not above 0";
    }
}

using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Http;

namespace Rho.Hosting;

/// <summary>The API keys that open a service, held as digests.</summary>
internal sealed class ApiKeys
{
    private readonly byte[][] _digests;

    private ApiKeys(IEnumerable<string> keys) => _digests = [.. keys.Select(Digest)];

    /// <summary>Whether calls need a key: when there is one.</summary>
    public bool AreNeeded => _digests.Length > 0;

    /// <summary>The keys of the file and of the environment variable's value. Throws <see cref="RhoException"/> for a source without keys.</summary>
    public static ApiKeys Load(string? file, string? variable)
    {
        var fromFile = file is null ? [] : Lines(file);
        if (file is not null && fromFile.Count == 0) throw new RhoException($"{nameof(RhoHostOptions.ApiKeysFile)}: {file} holds no key; write one a line");
        var fromVariable = (variable ?? "").Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
        if (variable is not null && fromVariable.Length == 0) throw new RhoException($"{RhoHostOptions.ApiKeysVariable}: holds no key; separate keys by commas, or unset it");
        return new ApiKeys([.. fromFile, .. fromVariable]);
    }

    /// <summary>Whether a key opens. Takes the same time for every key of a length, right or wrong.</summary>
    public bool Accepts(string key)
    {
        var digest = Digest(key);
        var accepted = false;
        foreach (var known in _digests) accepted |= CryptographicOperations.FixedTimeEquals(known, digest);
        return accepted;
    }

    private static List<string> Lines(string file)
    {
        try
        {
            return [.. File.ReadLines(file).Select(line => line.Trim()).Where(line => line.Length > 0 && line[0] != '#')];
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{nameof(RhoHostOptions.ApiKeysFile)}: cannot read {file}: {exception.Message}", exception);
        }
    }

    private static byte[] Digest(string key) => SHA256.HashData(Encoding.UTF8.GetBytes(key));
}

/// <summary>Lets calls in that carry a key and a client certificate, where these are asked for; probes and scrapers need neither.</summary>
internal sealed class Access(RequestDelegate next, ApiKeys keys, RhoHostOptions options)
{
    private const string Scheme = "Bearer ";

    public async Task InvokeAsync(HttpContext context)
    {
        if (Problem(context) is not { } problem)
        {
            await next(context);
        }
        else if (HttpErrors.IsGrpc(context.Request))
        {
            // A gRPC error without a body: the status travels in the headers.
            context.Response.ContentType = "application/grpc";
            context.Response.Headers["grpc-status"] = ((int)Grpc.Core.StatusCode.Unauthenticated).ToString();
            context.Response.Headers["grpc-message"] = Uri.EscapeDataString(problem);
        }
        else
        {
            await HttpErrors.Write(context, new UnauthenticatedException(problem));
        }
    }

    private string? Problem(HttpContext context)
    {
        if (!options.ProtectHealth && IsHealth(context.Request.Path)) return null;
        if (options.ClientAuthority is not null && context.Connection.ClientCertificate is null)
            return "a client certificate is needed here; connect with one that the server's client authority has issued";
        if (!keys.AreNeeded) return null;
        var header = context.Request.Headers.Authorization.ToString();
        if (header.Length == 0) return "an API key is needed here; send authorization: Bearer KEY";
        if (!header.StartsWith(Scheme, StringComparison.OrdinalIgnoreCase)) return "the authorization header is not of the form Bearer KEY";
        return keys.Accepts(header[Scheme.Length..].Trim()) ? null : "the API key is not known here";
    }

    private static bool IsHealth(PathString path) =>
        new[] { "/healthz", "/health", "/ping", "/metrics", "/grpc.health.v1.Health" }.Any(served => path.StartsWithSegments(served, StringComparison.OrdinalIgnoreCase));
}

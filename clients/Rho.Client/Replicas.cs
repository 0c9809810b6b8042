using System.Diagnostics;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Grpc.Core;
using Grpc.Net.Client;
using Rho.Protocol.Scoring.V1;

namespace Rho.Client;

/// <summary>One scorer process: its channel, how it is and what is known of its load.</summary>
internal sealed class Replica : IDisposable
{
    private static readonly TimeSpan InfoLifetime = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan InfoTimeout = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan AvoidAfterFailure = TimeSpan.FromSeconds(3);
    private const int MostFailures = 5;

    private readonly GrpcChannel _channel;
    private readonly SemaphoreSlim _asking = new(1);
    private long _askedAt;
    private long _failedAt;
    private int _failures;
    private long _ownTokens;
    private InfoResponse? _info;

    public Replica(string address, GrpcChannel channel)
    {
        Address = address;
        _channel = channel;
        Client = new ReferenceScorer.ReferenceScorerClient(channel);
    }

    public string Address { get; }

    public ReferenceScorer.ReferenceScorerClient Client { get; }

    /// <summary>Whether what it described of itself is what the client wants.</summary>
    public bool HasAgreed { get; set; }

    /// <summary>Whether it is to be left alone where there are others: for a while after a failure, for longer after several in a row.</summary>
    public bool FailedLately => Volatile.Read(ref _failures) is > 0 and var failures
        && Stopwatch.GetElapsedTime(Interlocked.Read(ref _failedAt)) < AvoidAfterFailure * Math.Min(failures, MostFailures);

    public bool Draining => _info?.Draining == true;

    /// <summary>Tokens that wait there, by its own account or by what this client asked of it.</summary>
    public long Load => Math.Max(_info?.QueuedTokens ?? 0, Interlocked.Read(ref _ownTokens));

    /// <summary>Counts tokens that this client asks of the replica until they are done or the reservation is disposed.</summary>
    public Reservation Reserve(long tokens) => new(this, tokens);

    public void MarkFailed()
    {
        Interlocked.Exchange(ref _failedAt, Stopwatch.GetTimestamp());
        Interlocked.Increment(ref _failures);
    }

    public void MarkWell() => Volatile.Write(ref _failures, 0);

    /// <summary>Asks for the replica's load, unless that is known well enough; a replica that does not answer is avoided for a while.</summary>
    public async Task RefreshAsync(Metadata headers, CancellationToken cancellation)
    {
        if (_askedAt != 0 && Stopwatch.GetElapsedTime(_askedAt) < InfoLifetime || FailedLately) return;
        if (!await _asking.WaitAsync(TimeSpan.Zero, cancellation).ConfigureAwait(false)) return;
        try
        {
            _info = await Client.InfoAsync(new InfoRequest(), headers, DateTime.UtcNow + InfoTimeout, cancellation).ConfigureAwait(false);
        }
        catch (RpcException)
        {
            cancellation.ThrowIfCancellationRequested();
            MarkFailed();
        }
        finally
        {
            _askedAt = Stopwatch.GetTimestamp();
            _asking.Release();
        }
    }

    public void Dispose()
    {
        _channel.Dispose();
        _asking.Dispose();
    }

    internal sealed class Reservation : IDisposable
    {
        private long _left;

        internal Reservation(Replica replica, long tokens)
        {
            Replica = replica;
            _left = tokens;
            Interlocked.Add(ref replica._ownTokens, tokens);
        }

        public Replica Replica { get; private set; }

        public void MoveTo(Replica other)
        {
            Interlocked.Add(ref Replica._ownTokens, -_left);
            Interlocked.Add(ref other._ownTokens, _left);
            Replica = other;
        }

        public void Done(long tokens)
        {
            _left -= tokens;
            Interlocked.Add(ref Replica._ownTokens, -tokens);
        }

        public void Dispose() => Done(_left);
    }
}

/// <summary>All scorers of the client's addresses, looked up again at intervals, and the choice among them.</summary>
internal sealed class Replicas : IAsyncDisposable
{
    private const string DnsScheme = "dns:///";
    private static readonly TimeSpan LookupTimeout = TimeSpan.FromSeconds(5);

    private readonly ScorerClientOptions _options;
    private readonly Metadata _headers;
    private readonly List<(Uri Uri, bool IsName)> _targets;
    private readonly X509Certificate2Collection? _authorities;
    private readonly X509Certificate2? _certificate;
    private readonly SemaphoreSlim _lookingUp = new(1);
    private readonly Lock _choosing = new();
    private readonly List<Replica> _left = [];
    private Dictionary<string, Replica> _replicas = new(StringComparer.Ordinal);
    private long _lookedUpAt;

    public Replicas(ScorerClientOptions options, Metadata headers)
    {
        _options = options;
        _headers = headers;
        _targets = [.. options.Addresses.Select(Parse)];
        _authorities = options.CertificateAuthority is { } authority ? LoadAuthorities(authority) : null;
        _certificate = options.ClientCertificate is { } certificate ? LoadCertificate(certificate, options.ClientKey!) : null;
    }

    /// <summary>The addresses as configured, for messages.</summary>
    public string Names => string.Join(", ", _options.Addresses);

    /// <summary>All replicas known now.</summary>
    /// <exception cref="ReplicaFailedException">A name cannot be looked up, and no replica is known from before.</exception>
    public async Task<IReadOnlyCollection<Replica>> AllAsync(CancellationToken cancellation)
    {
        if (IsFresh) return _replicas.Values;
        await _lookingUp.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (IsFresh) return _replicas.Values;
            var found = new Dictionary<string, Replica>(StringComparer.Ordinal);
            foreach (var (uri, isName) in _targets)
                foreach (var address in isName ? await LookUpAsync(uri, cancellation).ConfigureAwait(false) : [uri])
                    found[address.Authority] = _replicas.GetValueOrDefault(address.Authority) ?? Connect(address, uri.Host);

            // Streams may still run on replicas that the name no longer lists: their channels stay until the client goes.
            _left.AddRange(_replicas.Where(old => !found.ContainsKey(old.Key)).Select(old => old.Value));
            _replicas = found;
            _lookedUpAt = Stopwatch.GetTimestamp();
            return _replicas.Values;
        }
        catch (SocketException) when (_replicas.Count > 0)
        {
            _lookedUpAt = Stopwatch.GetTimestamp();
            return _replicas.Values;
        }
        catch (SocketException e)
        {
            throw new ReplicaFailedException(Names, $"cannot be looked up: {e.Message}", retryAfter: null, isInternal: false, e);
        }
        finally
        {
            _lookingUp.Release();
        }
    }

    /// <summary>
    /// The replica to use next: of those that work the one with the fewest queued tokens, by chance among equals. Where all have
    /// failed lately, the one whose failure may be over.
    /// </summary>
    /// <param name="except">Taken only where there is no other.</param>
    /// <param name="tokens">What is going to be asked of it, which counts from now on.</param>
    public async Task<Replica.Reservation> ChooseAsync(Replica? except, long tokens, CancellationToken cancellation)
    {
        var all = await AllAsync(cancellation).ConfigureAwait(false);
        if (all.Count > 1) await Task.WhenAll(all.Select(replica => replica.RefreshAsync(_headers, cancellation))).ConfigureAwait(false);
        lock (_choosing)
        {
            return all
                .OrderBy(replica => replica == except)
                .ThenBy(replica => replica.FailedLately || replica.Draining)
                .ThenBy(replica => replica.Load)
                .ThenBy(_ => Random.Shared.Next())
                .First()
                .Reserve(tokens);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _lookingUp.WaitAsync().ConfigureAwait(false);
        foreach (var replica in _replicas.Values.Concat(_left)) replica.Dispose();
        _certificate?.Dispose();
        _lookingUp.Dispose();
    }

    private bool IsFresh => _replicas.Count > 0
        && (!_targets.Exists(target => target.IsName) || Stopwatch.GetElapsedTime(_lookedUpAt) < _options.LookupInterval);

    private static (Uri Uri, bool IsName) Parse(string address)
    {
        var isName = address.StartsWith(DnsScheme, StringComparison.Ordinal);
        var text = isName ? address[DnsScheme.Length..] : address;
        var hasScheme = text.Contains("://", StringComparison.Ordinal);
        if (!Uri.TryCreate(hasScheme ? text : "http://" + text, UriKind.Absolute, out var uri) || uri.Scheme is not ("http" or "https") || uri.Host.Length == 0 || uri.PathAndQuery != "/"
            || (!hasScheme && !text.TrimEnd('/').EndsWith($":{uri.Port}", StringComparison.Ordinal)))
            throw new RhoException($"scorer address '{address}' is not one; expected host:port, http://host:port, https://host:port or dns:///name:port");
        return (uri, isName);
    }

    private static async Task<IEnumerable<Uri>> LookUpAsync(Uri name, CancellationToken cancellation)
    {
        var addresses = await Dns.GetHostAddressesAsync(name.Host, cancellation).WaitAsync(LookupTimeout, cancellation).ConfigureAwait(false);
        return addresses.Select(address => new UriBuilder(name) { Host = address.ToString() }.Uri);
    }

    private Replica Connect(Uri address, string hostName)
    {
        var handler = new SocketsHttpHandler
        {
            EnableMultipleHttp2Connections = true,
            ConnectTimeout = _options.ConnectTimeout,
            PooledConnectionIdleTimeout = Timeout.InfiniteTimeSpan,
            // A frozen process or a dead host answers no ping.
            KeepAlivePingDelay = _options.StallTimeout / 2,
            KeepAlivePingTimeout = _options.StallTimeout / 2,
            KeepAlivePingPolicy = HttpKeepAlivePingPolicy.WithActiveRequests,
            InitialHttp2StreamWindowSize = 1 << 20,
        };
        handler.SslOptions.TargetHost = hostName;
        if (_authorities is not null) handler.SslOptions.RemoteCertificateValidationCallback = (_, certificate, _, errors) => IsTrusted(certificate, errors);
        if (_certificate is not null) handler.SslOptions.ClientCertificates = [_certificate];
        return new Replica(address.Authority, GrpcChannel.ForAddress(address, new GrpcChannelOptions
        {
            HttpHandler = handler,
            DisposeHttpClient = true,
            // What is retried, where and how often is this client's decision.
            MaxRetryAttempts = null,
            ThrowOperationCanceledOnCancellation = false,
        }));
    }

    private bool IsTrusted(X509Certificate? certificate, SslPolicyErrors errors)
    {
        if (certificate is null || errors.HasFlag(SslPolicyErrors.RemoteCertificateNameMismatch)) return false;
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(_authorities!);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        return chain.Build((X509Certificate2)certificate);
    }

    private static X509Certificate2Collection LoadAuthorities(string file)
    {
        var authorities = new X509Certificate2Collection();
        Try("certificate authority", file, () => authorities.ImportFromPemFile(file));
        if (authorities.Count == 0) throw new RhoException($"certificate authority: {file} holds no PEM certificate");
        return authorities;
    }

    private static X509Certificate2 LoadCertificate(string certificate, string key)
    {
        X509Certificate2? loaded = null;
        Try("client certificate", $"{certificate} and {key}", () => loaded = X509Certificate2.CreateFromPemFile(certificate, key));
        return loaded!;
    }

    private static void Try(string setting, string files, Action read)
    {
        try
        {
            read();
        }
        catch (Exception e) when (e is CryptographicException or IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw new RhoException($"{setting}: cannot use {files} as PEM: {e.Message}", e);
        }
    }
}

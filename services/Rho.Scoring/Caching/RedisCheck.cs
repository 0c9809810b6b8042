using StackExchange.Redis;

namespace Rho.Scoring.Caching;

/// <summary>
/// Tries on a server what the store needs of it, under keys of its own that expire: servers that speak Redis's
/// protocol differ in what they do, and one that was restarted or took over may be set up differently.
/// </summary>
/// <param name="Usable">Whether reading works and leases exclude each other. What is merely refused, such as writing where memory is full, leaves it usable.</param>
/// <param name="Trouble">What is missing and what to set, on one line; null: nothing.</param>
/// <param name="Server">The server's name, version, memory limit and eviction policy, as far as it tells.</param>
internal sealed record RedisCheck(bool Usable, string? Trouble, string Server)
{
    private static readonly TimeSpan Lease = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan Expiry = TimeSpan.FromMilliseconds(100);

    /// <exception cref="RedisException">The connection broke.</exception>
    /// <exception cref="TimeoutException">No answer within the command timeout.</exception>
    public static async Task<RedisCheck> RunAsync(IConnectionMultiplexer connection, RedisOptions options, CancellationToken cancellation)
    {
        var database = connection.GetDatabase();
        // One hash tag, so that all is on one slot of a cluster.
        var prefix = $"rho:{{check:{Guid.NewGuid():N}}}";
        RedisKey lease = prefix + ":lease", chunk = prefix + ":chunk";
        var usable = false;
        try
        {
            await Within(database.StringGetAsync([chunk, lease]));
            // The client itself refuses to write to replicas.
            if (connection.GetServers().Where(server => server.IsConnected).All(server => server.IsReplica))
                return new RedisCheck(Usable: false, "is a read-only replica: scoring without cache; give the address of the primary", "");
            usable = true;
            // As large as a chunk's values: a server that is nearly full, or takes small values only, would take a small one.
            await Within(database.StringSetAsync(chunk, new byte[RedisLossStore.PartBytes], Expiry, When.NotExists));
            if (!await Within(database.LockTakeAsync(lease, "a", Lease)) || await Within(database.LockTakeAsync(lease, "b", Lease)))
                return new RedisCheck(Usable: false, "does not keep to SET NX, so leases exclude nobody: use another server", "");
            await Within(database.KeyExpireAsync(lease, Lease));
            if (await Within(database.LockReleaseAsync(lease, "b")) || !await Within(database.LockReleaseAsync(lease, "a")))
                return new RedisCheck(Usable: false, "does not keep to WATCH and MULTI, so a lease may be released by another than its holder: use another server", "");
            await Task.Delay(2 * Expiry, cancellation);
            if (await Within(database.KeyExistsAsync(chunk)))
                return new RedisCheck(Usable: false, "does not let keys expire, so the lease of a holder that dies stays for good: use another server", "");
        }
        catch (RedisServerException e)
        {
            return new RedisCheck(usable, Refusal(e), "");
        }

        string? trouble = null;
        var servers = new List<string>();
        foreach (var server in connection.GetServers().Where(server => server is { IsConnected: true, IsReplica: false }))
        {
            var (described, evictionTrouble) = await DescribeAsync(server);
            servers.Add(described);
            trouble ??= evictionTrouble;
        }

        return new RedisCheck(Usable: true, trouble, string.Join("; ", servers));

        async Task<(string Server, string? Trouble)> DescribeAsync(IServer server)
        {
            var name = $"{server.GetProductVariant(out var version)} {version}";
            Dictionary<string, string> memory;
            try
            {
                // INFO rather than CONFIG GET: managed servers mostly allow it.
                var sections = await Within(server.InfoAsync("memory"));
                memory = sections.SelectMany(section => section).DistinctBy(pair => pair.Key, StringComparer.Ordinal).ToDictionary(StringComparer.Ordinal);
            }
            catch (RedisServerException e)
            {
                return ($"{name}, which does not tell its eviction policy ({e.Message})", null);
            }

            if (!memory.TryGetValue("maxmemory_policy", out var policy) || !memory.TryGetValue("maxmemory", out var limit))
                return ($"{name}, which does not tell its eviction policy", null);
            return limit == "0" ? ($"{name}, without a memory limit", null) : ($"{name}, maxmemory {limit} bytes, {policy}", EvictionTrouble(policy, options.TimeToLive));
        }

        Task<T> Within<T>(Task<T> command) => command.WaitAsync(options.CommandTimeout, cancellation);
    }

    /// <summary>What a server says no to, and what to do about it.</summary>
    public static string Refusal(RedisServerException refusal) => refusal.Message.Split(' ', 2)[0] switch
    {
        "OOM" => $"is full ({refusal.Message}): new scores are not cached; raise maxmemory or set maxmemory-policy allkeys-lru",
        "READONLY" => $"is a read-only replica ({refusal.Message}): new scores are not cached; give the address of the primary",
        "LOADING" => $"loads its data ({refusal.Message}): scoring without cache until it has",
        "NOAUTH" or "WRONGPASS" or "NOPERM" => $"does not let this user work ({refusal.Message}); give HOST:PORT,user=NAME,password=PASSWORD of one that may read, write, expire and delete keys of rho:*, with WATCH and MULTI",
        _ => $"refuses what the cache needs ({refusal.Message})",
    };

    // A store that evicts nothing (noeviction) or anything (allkeys-*) is sound: see Refusal for when it is full. One that evicts only
    // what expires takes leases first, which makes replicas score the same chunks, and where scores do not expire nothing else.
    private static string? EvictionTrouble(string policy, TimeSpan? timeToLive) =>
        policy == "volatile-ttl" ? "evicts what expires soonest (maxmemory-policy volatile-ttl), and that is leases: set maxmemory-policy allkeys-lru"
        : timeToLive is null && policy.StartsWith("volatile-", StringComparison.Ordinal) ? $"evicts only keys that expire (maxmemory-policy {policy}), and without a time to live only leases do: set maxmemory-policy allkeys-lru or give --ttl"
        : null;
}

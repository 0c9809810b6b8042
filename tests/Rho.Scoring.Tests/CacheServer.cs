using System.Net;
using System.Net.Sockets;
using Garnet;
using Garnet.server;
using Rho.TestSupport;
using StackExchange.Redis;

namespace Rho.Scoring.Tests;

/// <summary>A server that speaks Redis's protocol, and a connection to it that sees and changes what the stores keep there.</summary>
internal sealed class CacheServer : IAsyncDisposable
{
    public const string Redis = "redis", Garnet = "garnet", GarnetWithScripts = "garnet with scripts", SmallGarnet = "garnet of 4 MiB";

    private readonly IAsyncDisposable? _process;
    private readonly GarnetServer? _garnet;

    private CacheServer(string address, ConnectionMultiplexer admin, IAsyncDisposable? process, GarnetServer? garnet)
    {
        Address = address;
        Admin = admin;
        _process = process;
        _garnet = garnet;
    }

    /// <summary>What the protocol has to hold on. Garnet runs in this process; without an installed Redis its tests are skipped.</summary>
    public static TheoryData<string> Kinds => [Redis, Garnet, GarnetWithScripts];

    public string Address { get; }

    public ConnectionMultiplexer Admin { get; }

    public IDatabase Database => Admin.GetDatabase();

    public static async Task<CacheServer> StartAsync(string kind)
    {
        if (kind == Redis)
        {
            var redis = await RedisServer.StartAsync();
            return new CacheServer(redis.Address, await ConnectAsync(redis.Address), redis, null);
        }

        for (var attempt = 0; ; attempt++)
        {
            var endPoint = FreeEndPoint();
            var garnet = new GarnetServer(Options(kind, endPoint));
            try
            {
                garnet.Start();
                return new CacheServer($"{endPoint}", await ConnectAsync($"{endPoint}"), null, garnet);
            }
            catch (SocketException) when (attempt < 3)
            {
                // Somebody else took the port in between.
                garnet.Dispose();
            }
        }
    }

    public Task FlushAsync() => Admin.GetServers()[0].FlushDatabaseAsync();

    public async ValueTask DisposeAsync()
    {
        await Admin.DisposeAsync();
        _garnet?.Dispose();
        if (_process is not null) await _process.DisposeAsync();
    }

    private static GarnetServerOptions Options(string kind, IPEndPoint endPoint) => kind switch
    {
        Garnet => new GarnetServerOptions { EndPoints = [endPoint], QuietMode = true },
        // Page and log of 1 and 4 MiB: what was written first is dropped first, whether it is in use or not.
        SmallGarnet => new GarnetServerOptions { EndPoints = [endPoint], QuietMode = true, PageSize = "1m", LogMemorySize = "4m", IndexMemorySize = "1m" },
        _ => new GarnetServerOptions
        {
            EndPoints = [endPoint],
            QuietMode = true,
            EnableLua = true,
            LuaTransactionMode = true,
            LuaOptions = new LuaOptions(LuaMemoryManagementMode.Native, "", Timeout.InfiniteTimeSpan, LuaLoggingMode.Silent, []),
        },
    };

    private static Task<ConnectionMultiplexer> ConnectAsync(string address) => ConnectionMultiplexer.ConnectAsync(address + ",allowAdmin=true");

    private static IPEndPoint FreeEndPoint()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return (IPEndPoint)socket.LocalEndPoint!;
    }
}

using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace Rho.TestSupport;

/// <summary>A real redis-server on a port of its own, without persistence, that a test may kill, freeze and start again.</summary>
internal sealed class RedisServer : IAsyncDisposable
{
    private readonly string[] _arguments;
    private Process _process;

    private RedisServer(int port, string[] arguments)
    {
        Port = port;
        _arguments = arguments;
        _process = Start();
    }

    public static bool IsInstalled { get; } = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(folder => File.Exists(Path.Combine(folder, "redis-server")));

    public int Port { get; }

    public string Address => $"127.0.0.1:{Port}";

    /// <summary>Starts one; the test is skipped where redis-server is not installed.</summary>
    public static async Task<RedisServer> StartAsync(params string[] arguments)
    {
        Assert.SkipUnless(IsInstalled, "redis-server is not installed");
        for (var attempt = 0; ; attempt++)
        {
            var server = new RedisServer(FreePort(), arguments);
            try
            {
                await server.WaitAsync();
                return server;
            }
            catch (IOException) when (attempt < 3)
            {
                // Somebody else took the port in between.
                await server.DisposeAsync();
            }
        }
    }

    public void Kill()
    {
        _process.Kill();
        _process.WaitForExit();
    }

    /// <summary>Starts it again, empty, on the same port.</summary>
    public async Task RestartAsync()
    {
        _process.Dispose();
        _process = Start();
        await WaitAsync();
    }

    /// <summary>Runs one command and returns the answer's first line.</summary>
    public async Task<string> CommandAsync(params string[] words)
    {
        using var client = new TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, Port).WaitAsync(TimeSpan.FromSeconds(5));
        await using var stream = client.GetStream();
        var command = $"*{words.Length}\r\n" + string.Concat(words.Select(word => $"${System.Text.Encoding.UTF8.GetByteCount(word)}\r\n{word}\r\n"));
        await stream.WriteAsync(System.Text.Encoding.UTF8.GetBytes(command));
        using var reader = new StreamReader(stream);
        return await reader.ReadLineAsync().WaitAsync(TimeSpan.FromSeconds(5)) ?? "";
    }

    public ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
            _process.WaitForExit();
        }

        _process.Dispose();
        return ValueTask.CompletedTask;
    }

    private static int FreePort()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }

    private Process Start() => Process.Start(new ProcessStartInfo("redis-server", ["--port", $"{Port}", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", Path.GetTempPath(), .. _arguments])
    {
        UseShellExecute = false,
        RedirectStandardOutput = true,
        RedirectStandardError = true,
    })!;

    private async Task WaitAsync()
    {
        for (var start = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(start) < TimeSpan.FromSeconds(20);)
        {
            if (_process.HasExited) break;
            try
            {
                if (await CommandAsync("PING") == "+PONG") return;
            }
            catch (SocketException)
            {
                await Task.Delay(20);
            }
        }

        throw new IOException("redis-server did not start");
    }
}

using System.Net;
using System.Net.Sockets;

namespace Rho.Client.Tests;

/// <summary>A wire to a scorer that a test can cut, as a kill does, or freeze, as a stopped process does.</summary>
internal sealed class TcpProxy : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly int _target;
    private readonly CancellationTokenSource _stop = new();
    private readonly List<TcpClient> _clients = [];
    private readonly Task _accepting;
    private long _bytesBack;
    private TaskCompletionSource? _frozen;

    public TcpProxy(Uri target)
    {
        _target = target.Port;
        _listener.Start();
        _accepting = AcceptAsync();
    }

    public string Address => $"127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}";

    /// <summary>When this many bytes have come from the scorer, <see cref="OnReached"/> is called, once.</summary>
    public long ReachAt { get; set; } = long.MaxValue;

    public Action? OnReached { get; set; }

    public int Connections { get; private set; }

    public void Freeze() => _frozen = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Ends all connections and takes no new ones.</summary>
    public void Cut()
    {
        _stop.Cancel();
        _listener.Stop();
        lock (_clients) _clients.ForEach(client => client.Close());
    }

    public async ValueTask DisposeAsync()
    {
        Cut();
        _frozen?.TrySetResult();
        await _accepting.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
    }

    private async Task AcceptAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            var client = await _listener.AcceptTcpClientAsync(_stop.Token);
            var server = new TcpClient();
            lock (_clients)
            {
                _clients.Add(client);
                _clients.Add(server);
                Connections++;
            }

            await server.ConnectAsync(IPAddress.Loopback, _target, _stop.Token);
            _ = PumpAsync(client, server, back: false);
            _ = PumpAsync(server, client, back: true);
        }
    }

    private async Task PumpAsync(TcpClient from, TcpClient to, bool back)
    {
        var buffer = new byte[16_384];
        try
        {
            while (await from.GetStream().ReadAsync(buffer, _stop.Token) is > 0 and var count)
            {
                if (back && Interlocked.Add(ref _bytesBack, count) >= ReachAt)
                {
                    ReachAt = long.MaxValue;
                    OnReached?.Invoke();
                }

                if (_frozen is { } frozen) await frozen.Task;
                await to.GetStream().WriteAsync(buffer.AsMemory(0, count), _stop.Token);
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException or OperationCanceledException or SocketException or InvalidOperationException)
        {
            // The end of a connection, however it came.
        }

        from.Close();
        to.Close();
    }
}

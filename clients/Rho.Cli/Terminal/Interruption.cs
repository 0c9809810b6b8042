using System.Runtime.InteropServices;

namespace Rho.Cli.Terminal;

/// <summary>Ctrl-C and SIGTERM as a cancelled token, so that work ends in order; a second Ctrl-C ends the process at once.</summary>
internal sealed class Interruption : IDisposable
{
    private readonly CancellationTokenSource _source = new();
    private readonly PosixSignalRegistration[] _registrations;
    private PosixSignal? _received;

    public Interruption() =>
        _registrations = [.. new[] { PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGHUP }.Select(signal => PosixSignalRegistration.Create(signal, Handle))];

    public CancellationToken Token => _source.Token;

    /// <summary>128 and the signal's number, as shells count: 130 after Ctrl-C, 143 after SIGTERM.</summary>
    public int ExitCode => _received switch
    {
        PosixSignal.SIGTERM => 143,
        PosixSignal.SIGHUP => 129,
        _ => 130,
    };

    public void Dispose()
    {
        foreach (var registration in _registrations) registration.Dispose();
        _source.Dispose();
    }

    private void Handle(PosixSignalContext context)
    {
        // Not cancelling the context lets the default happen: the process ends.
        if (_received is not null && context.Signal == PosixSignal.SIGINT) return;
        context.Cancel = true;
        _received ??= context.Signal;
        _source.Cancel();
    }
}

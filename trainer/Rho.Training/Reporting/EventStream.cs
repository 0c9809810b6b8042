using System.Threading.Channels;

namespace Rho.Training;

/// <summary>Passes events to any number of watchers. A watcher that does not keep up loses its oldest events, never the last.</summary>
internal sealed class EventStream
{
    private const int Backlog = 4096;
    private readonly List<Channel<TrainingEvent>> _watchers = [];
    private TrainingEvent? _started;
    private bool _completed;

    public void Publish(TrainingEvent e)
    {
        lock (_watchers)
        {
            if (e is RunStarted) _started = e;
            foreach (var watcher in _watchers) watcher.Writer.TryWrite(e);
        }
    }

    /// <summary>Ends all watchers after what they have not read yet.</summary>
    public void Complete()
    {
        lock (_watchers)
        {
            _completed = true;
            foreach (var watcher in _watchers) watcher.Writer.TryComplete();
        }
    }

    /// <summary>Events from now on, after the event of the run's start if that has passed.</summary>
    public ChannelReader<TrainingEvent> Watch()
    {
        var channel = Channel.CreateBounded<TrainingEvent>(new BoundedChannelOptions(Backlog) { FullMode = BoundedChannelFullMode.DropOldest });
        lock (_watchers)
        {
            if (_started is not null) channel.Writer.TryWrite(_started);
            if (_completed) channel.Writer.TryComplete();
            else _watchers.Add(channel);
        }

        return channel.Reader;
    }

    public void Remove(ChannelReader<TrainingEvent> reader)
    {
        lock (_watchers) _watchers.RemoveAll(watcher => watcher.Reader == reader);
    }
}

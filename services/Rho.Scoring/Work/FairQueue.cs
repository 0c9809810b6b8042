namespace Rho.Scoring.Work;

/// <summary>
/// Work of several clients in fair order (start-time fair queuing): the next is always of the client that has been served the
/// fewest tokens, whoever asked first or most. A client that comes or comes back starts where the least served one stands, so
/// it neither waits for the others' past nor is paid back for having been away. Not thread-safe.
/// </summary>
internal sealed class FairQueue
{
    private readonly Dictionary<string, Client> _clients = new(StringComparer.Ordinal);
    private readonly Dictionary<ScoringWork, LinkedListNode<ScoringWork>> _nodes = [];
    private long _served;

    public int Count => _nodes.Count;

    public void Enqueue(ScoringWork work)
    {
        if (!_clients.TryGetValue(work.Client, out var client)) _clients.Add(work.Client, client = new Client());
        if (client.Waiting.Count == 0) client.Served = Math.Max(client.Served, _served);
        _nodes.Add(work, client.Waiting.AddLast(work));
    }

    /// <summary>Takes the next work, or null. With <paramref name="joining"/>, only work that may be one batch with that.</summary>
    public ScoringWork? Dequeue(ScoringWork? joining = null, int atMost = int.MaxValue)
    {
        Client? next = null;
        foreach (var client in _clients.Values)
        {
            if (client.Waiting.First?.Value is not { } head || joining is not null && !head.MayJoin(joining) || head.Count > atMost) continue;
            if (next is null || client.Served < next.Served) next = client;
        }

        if (next is null) return null;
        var work = next.Waiting.First!.Value;
        next.Waiting.RemoveFirst();
        _nodes.Remove(work);
        _served = Math.Max(_served, next.Served);
        next.Served += work.Count;
        ForgetIdle();
        return work;
    }

    /// <summary>Takes out work that nobody waits for any more. False where it was taken already.</summary>
    public bool Remove(ScoringWork work)
    {
        if (!_nodes.Remove(work, out var node)) return false;
        node.List!.Remove(node);
        return true;
    }

    // A client that stands behind the least served one would be moved up on its return anyway.
    private void ForgetIdle()
    {
        foreach (var (name, client) in _clients)
            if (client.Waiting.Count == 0 && client.Served <= _served)
                _clients.Remove(name);
    }

    private sealed class Client
    {
        public long Served;

        public LinkedList<ScoringWork> Waiting { get; } = [];
    }
}

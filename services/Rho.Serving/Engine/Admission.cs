using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;

namespace Rho.Serving.Engine;

/// <summary>
/// The door of an engine: who may come in, and what is under way. A request waits from <see cref="Enter"/> until <see cref="Begin"/>
/// or its end, and is under way until <see cref="Leave"/>. Thread-safe.
/// </summary>
/// <param name="name">The model's, for messages.</param>
/// <param name="pace">What a refused client is told to wait follows from it.</param>
internal sealed class Admission(string name, EngineOptions options, StepPace pace)
{
    private readonly Lock _gate = new();
    private readonly Queue<Generation> _inbox = new();
    private readonly Dictionary<string, int> _requestsPerClient = [];
    private int _waitingRequests;
    private long _waitingTokens;
    private int _unfinished;
    private bool _closed;

    /// <summary>Requests accepted and not ended.</summary>
    public int Unfinished
    {
        get
        {
            lock (_gate) return _unfinished;
        }
    }

    /// <summary>Nobody comes in any more, and all have left.</summary>
    public bool IsDrained
    {
        get
        {
            lock (_gate) return _closed && _unfinished == 0;
        }
    }

    /// <summary>Throws what <see cref="Enter"/> would throw for a request of so many tokens now.</summary>
    /// <exception cref="OverloadedException">The queue or the client's share is full.</exception>
    public void CheckRoom(long tokens, string client)
    {
        lock (_gate) CheckRoom_NeedsLock(tokens, client);
    }

    /// <summary>Throws when so many requests that come together cannot all enter even an empty queue.</summary>
    /// <exception cref="InvalidFieldException">They are more than the queue or a client's share holds.</exception>
    public void CheckPossible(int requests, long tokens)
    {
        if (options.MaxRequestsPerClient > 0 && requests > options.MaxRequestsPerClient)
            throw new InvalidFieldException("prompt", $"{requests} prompts in one call, and a client may have {options.MaxRequestsPerClient} under way; send fewer at a time");
        if (requests > options.MaxWaitingRequests)
            throw new InvalidFieldException("prompt", $"{requests} prompts in one call, and {options.MaxWaitingRequests} may wait; send fewer at a time");
        if (requests > 1 && tokens > options.MaxWaitingTokens)
            throw new InvalidFieldException("prompt", $"the prompts have {tokens} tokens, each counted once per answer, and {options.MaxWaitingTokens} may wait; send fewer at a time");
    }

    /// <summary>Lets a request in to wait.</summary>
    /// <exception cref="OverloadedException">The queue or the client's share is full.</exception>
    /// <exception cref="UnavailableException">The door is closed.</exception>
    public void Enter(Generation generation)
    {
        var request = generation.Request;
        lock (_gate)
        {
            if (_closed) throw new UnavailableException($"model {name} is being taken out of service; try again");
            CheckRoom_NeedsLock(request.QueueTokens, request.Client);
            _waitingRequests++;
            _waitingTokens += request.QueueTokens;
            _unfinished++;
            CollectionsMarshal.GetValueRefOrAddDefault(_requestsPerClient, request.Client, out _)++;
            // Under the lock: whatever came in before Close is found here after it.
            _inbox.Enqueue(generation);
        }
    }

    /// <summary>The next request that came in, each once; it goes on waiting.</summary>
    public bool TryTake([NotNullWhen(true)] out Generation? generation)
    {
        lock (_gate) return _inbox.TryDequeue(out generation);
    }

    /// <summary>A request's computation begins: it waits no longer.</summary>
    public void Begin(GenerationRequest request)
    {
        lock (_gate) LeaveQueue_NeedsLock(request);
    }

    /// <summary>A request has ended.</summary>
    /// <param name="waiting">Whether it ended before it began.</param>
    public void Leave(GenerationRequest request, bool waiting)
    {
        lock (_gate)
        {
            if (waiting) LeaveQueue_NeedsLock(request);
            _unfinished--;
            if (--CollectionsMarshal.GetValueRefOrAddDefault(_requestsPerClient, request.Client, out _) == 0) _requestsPerClient.Remove(request.Client);
        }
    }

    /// <summary>Lets nobody in any more.</summary>
    public void Close()
    {
        lock (_gate) _closed = true;
    }

    private void LeaveQueue_NeedsLock(GenerationRequest request)
    {
        _waitingRequests--;
        _waitingTokens -= request.QueueTokens;
    }

    private void CheckRoom_NeedsLock(long tokens, string client)
    {
        if (options.MaxRequestsPerClient > 0 && _requestsPerClient.GetValueOrDefault(client) >= options.MaxRequestsPerClient)
            throw new OverloadedException($"this client has {options.MaxRequestsPerClient} requests under way, which is its limit", TimeSpan.FromSeconds(1));
        if (_waitingRequests >= options.MaxWaitingRequests)
            throw new OverloadedException($"the queue is full: {_waitingRequests} requests wait", RetryAfter());
        if (_waitingRequests > 0 && _waitingTokens + tokens > options.MaxWaitingTokens)
            throw new OverloadedException($"the queue is full: {_waitingTokens} prompt tokens wait, and {tokens} more are beyond {options.MaxWaitingTokens}", RetryAfter());
    }

    /// <summary>About the time until what waits now has begun, from 1 to 60 s.</summary>
    private TimeSpan RetryAfter() => TimeSpan.FromSeconds(Math.Clamp(_waitingTokens * pace.SecondsPerToken, 1, 60));
}

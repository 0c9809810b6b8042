namespace TorchSharp;

/// <summary>The tensors made in a region of code; they are disposed with it unless they leave it.</summary>
public sealed class DisposeScope : IDisposable
{
    private readonly DisposeScopeManager _manager;
    private readonly HashSet<IDisposable> _disposables = new(ReferenceEqualityComparer.Instance);

    internal DisposeScope(DisposeScopeManager manager) => _manager = manager;

    internal DisposeScope? OuterScope { get; init; }

    public int DisposablesCount => _disposables.Count;
    public IReadOnlyList<IDisposable> DisposablesView => [.. _disposables];

    public bool Contains(IDisposable disposable) => _disposables.Contains(disposable);

    public void Attach(IDisposable disposable)
    {
        if (disposable is not torch.Tensor tensor || tensor.IsInvalid) return;
        if (ReferenceEquals(tensor.OwningDisposeScope, this)) return;
        tensor.OwningDisposeScope?._disposables.Remove(tensor);
        if (tensor.OwningDisposeScope is null) _manager.Tensors.AttachedToScopeCount++;
        Adopt(tensor);
    }

    public void Attach(params IDisposable[] disposables) => Attach((IEnumerable<IDisposable>)disposables);

    public IReadOnlyList<IDisposable> Attach(IEnumerable<IDisposable> disposables)
    {
        IReadOnlyList<IDisposable> list = [.. disposables];
        foreach (var disposable in list) Attach(disposable);
        return list;
    }

    internal void Adopt(torch.Tensor tensor)
    {
        _disposables.Add(tensor);
        tensor.OwningDisposeScope = this;
    }

    internal void Forget(torch.Tensor tensor)
    {
        _disposables.Remove(tensor);
        tensor.OwningDisposeScope = null;
    }

    public T MoveToOuter<T>(T disposable) where T : IDisposable
    {
        Move(OuterScope, disposable);
        return disposable;
    }

    public (T1 first, T2 second) MoveToOuter<T1, T2>(T1 first, T2 second) where T1 : IDisposable where T2 : IDisposable => (MoveToOuter(first), MoveToOuter(second));
    public (T1 first, T2 second, T3 third) MoveToOuter<T1, T2, T3>(T1 first, T2 second, T3 third) where T1 : IDisposable where T2 : IDisposable where T3 : IDisposable =>
        (MoveToOuter(first), MoveToOuter(second), MoveToOuter(third));
    public void MoveToOuter(params IDisposable[] disposables) => MoveToOuter((IEnumerable<IDisposable>)disposables);

    public void MoveToOuter(IEnumerable<IDisposable> disposables)
    {
        foreach (var disposable in disposables) Move(OuterScope, disposable);
    }

    public T MoveToOther<T>(DisposeScope scope, T disposable) where T : IDisposable
    {
        Move(scope, disposable);
        return disposable;
    }

    public void MoveToOther(DisposeScope scope, params IDisposable[] disposables) => MoveToOther(scope, (IEnumerable<IDisposable>)disposables);

    public void MoveToOther(DisposeScope scope, IEnumerable<IDisposable> disposables)
    {
        foreach (var disposable in disposables) Move(scope, disposable);
    }

    public T Detach<T>(T disposable) where T : IDisposable
    {
        Move(null, disposable);
        return disposable;
    }

    public void Detach(params IDisposable[] disposables) => Detach((IEnumerable<IDisposable>)disposables);

    public void Detach(IEnumerable<IDisposable> disposables)
    {
        foreach (var disposable in disposables) Move(null, disposable);
    }

    private void Move(DisposeScope? to, IDisposable disposable)
    {
        if (disposable is not torch.Tensor tensor || !_disposables.Contains(tensor)) return;
        Forget(tensor);
        if (to is null) _manager.Tensors.DetachedFromScopeCount++;
        else to.Adopt(tensor);
    }

    public void DisposeEverything() => DisposeEverythingBut([]);

    public void DisposeEverythingBut(IEnumerable<IDisposable> inKeep)
    {
        var keep = new HashSet<IDisposable>(inKeep, ReferenceEqualityComparer.Instance);
        foreach (var disposable in _disposables.ToArray())
            if (!keep.Contains(disposable)) disposable.Dispose();
    }

    public void DisposeEverythingBut(params IDisposable[] keep) => DisposeEverythingBut((IEnumerable<IDisposable>)keep);

    public T DisposeEverythingBut<T>(T keep) where T : IDisposable
    {
        DisposeEverythingBut((IEnumerable<IDisposable>)[keep]);
        return keep;
    }

    public void MarkAsDisposed(IDisposable disposable)
    {
        if (disposable is not torch.Tensor tensor || !_disposables.Remove(tensor)) return;
        tensor.OwningDisposeScope = null;
        _manager.Tensors.DisposedInScopeCount++;
    }

    public void Dispose()
    {
        DisposeEverything();
        _manager.Remove(this);
    }
}

/// <summary>The scopes of one thread, innermost last, and what was made and disposed on it.</summary>
public sealed class DisposeScopeManager
{
    [ThreadStatic] private static DisposeScopeManager? t_current;
    private readonly List<DisposeScope> _scopes = [];

    internal static DisposeScopeManager ForThread => t_current ??= new DisposeScopeManager();

    internal LifetimeStatistics Tensors => ThreadStatistics.TensorStatistics;

    internal ThreadDisposeScopeStatistics ThreadStatistics { get; } = new();

    public static ThreadDisposeScopeStatistics Statistics => ForThread.ThreadStatistics;

    internal DisposeScope? Current => _scopes.Count == 0 ? null : _scopes[^1];

    internal DisposeScope Open()
    {
        var scope = new DisposeScope(this) { OuterScope = Current };
        _scopes.Add(scope);
        return scope;
    }

    internal void Remove(DisposeScope scope) => _scopes.Remove(scope);

    internal void Register(torch.Tensor tensor)
    {
        if (Current is { } scope)
        {
            Tensors.CreatedInScopeCount++;
            scope.Adopt(tensor);
        }
        else
        {
            Tensors.CreatedOutsideScopeCount++;
        }
    }
}

public sealed class LifetimeStatistics
{
    public long CreatedOutsideScopeCount { get; internal set; }
    public long CreatedInScopeCount { get; internal set; }
    public long AttachedToScopeCount { get; internal set; }
    public long DetachedFromScopeCount { get; internal set; }
    public long DisposedInScopeCount { get; internal set; }
    public long DisposedOutsideScopeCount { get; internal set; }

    public long ThreadTotalLiveCount => CreatedInScopeCount + CreatedOutsideScopeCount - DisposedInScopeCount - DisposedOutsideScopeCount;

    public void Reset() => CreatedOutsideScopeCount = CreatedInScopeCount = AttachedToScopeCount = DetachedFromScopeCount = DisposedInScopeCount = DisposedOutsideScopeCount = 0;

    public override string ToString() =>
        $"ThreadTotalLiveCount: {ThreadTotalLiveCount}; CreatedOutsideScopeCount: {CreatedOutsideScopeCount}; DisposedOutsideScopeCount: {DisposedOutsideScopeCount}; CreatedInScopeCount: {CreatedInScopeCount}; DisposedInScopeCount: {DisposedInScopeCount}; AttachedToScopeCount: {AttachedToScopeCount}; DetachedFromScopeCount: {DetachedFromScopeCount}";
}

public sealed class ThreadDisposeScopeStatistics
{
    public LifetimeStatistics TensorStatistics { get; } = new();
    public long CreatedOutsideScopeCount => TensorStatistics.CreatedOutsideScopeCount;
    public long CreatedInScopeCount => TensorStatistics.CreatedInScopeCount;
    public long AttachedToScopeCount => TensorStatistics.AttachedToScopeCount;
    public long DetachedFromScopeCount => TensorStatistics.DetachedFromScopeCount;
    public long DisposedInScopeCount => TensorStatistics.DisposedInScopeCount;
    public long DisposedOutsideScopeCount => TensorStatistics.DisposedOutsideScopeCount;
    public long ThreadTotalLiveCount => TensorStatistics.ThreadTotalLiveCount;
    public void Reset() => TensorStatistics.Reset();
    public override string ToString() => TensorStatistics.ToString();
}

using System.Diagnostics;
using System.Diagnostics.Metrics;
using Grpc.Core;
using Grpc.Core.Interceptors;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;

namespace Rho.Hosting;

/// <summary>Stands before every gRPC call: turns exceptions into statuses, logs what the server has to answer for, and measures.</summary>
internal sealed partial class ErrorInterceptor : Interceptor
{
    /// <summary>Marks, in a request's items, that its call got as far as this.</summary>
    public static readonly object Reached = new();

    private readonly ILogger<ErrorInterceptor> _logger;
    private readonly ServiceHealth _health;
    private readonly UpDownCounter<long> _active;
    private readonly Histogram<double> _duration;

    public ErrorInterceptor(ILogger<ErrorInterceptor> logger, ServiceHealth health, IMeterFactory meters)
    {
        _logger = logger;
        _health = health;
        var meter = meters.Create("Rho.Hosting");
        _active = meter.CreateUpDownCounter<long>("rho.rpc.active", description: "gRPC calls that run now.");
        _duration = meter.CreateHistogram<double>("rho.rpc.duration", "s", "Time from a gRPC call's start to its end.");
    }

    public override Task<TResponse> UnaryServerHandler<TRequest, TResponse>(TRequest request, ServerCallContext context, UnaryServerMethod<TRequest, TResponse> continuation) =>
        Guard(context, () => continuation(request, context));

    public override Task<TResponse> ClientStreamingServerHandler<TRequest, TResponse>(IAsyncStreamReader<TRequest> requestStream, ServerCallContext context, ClientStreamingServerMethod<TRequest, TResponse> continuation) =>
        Guard(context, () => continuation(requestStream, context));

    public override Task ServerStreamingServerHandler<TRequest, TResponse>(TRequest request, IServerStreamWriter<TResponse> responseStream, ServerCallContext context, ServerStreamingServerMethod<TRequest, TResponse> continuation) =>
        Guard(context, () => NoResult(continuation(request, responseStream, context)));

    public override Task DuplexStreamingServerHandler<TRequest, TResponse>(IAsyncStreamReader<TRequest> requestStream, IServerStreamWriter<TResponse> responseStream, ServerCallContext context, DuplexStreamingServerMethod<TRequest, TResponse> continuation) =>
        Guard(context, () => NoResult(continuation(requestStream, responseStream, context)));

    private static async Task<object?> NoResult(Task task)
    {
        await task;
        return null;
    }

    private async Task<T> Guard<T>(ServerCallContext context, Func<Task<T>> call)
    {
        context.GetHttpContext().Items[Reached] = true;
        var method = new KeyValuePair<string, object?>("method", context.Method);
        var start = Stopwatch.GetTimestamp();
        var code = StatusCode.OK;
        _active.Add(1, method);
        try
        {
            var result = await call();
            code = context.Status.StatusCode;
            return result;
        }
        catch (Exception exception)
        {
            var error = Translate(exception, context);
            code = error.StatusCode;
            throw error;
        }
        finally
        {
            _active.Add(-1, method);
            _duration.Record(Stopwatch.GetElapsedTime(start).TotalSeconds, method, new("code", code.ToString()));
        }
    }

    private RpcException Translate(Exception exception, ServerCallContext context)
    {
        if (exception is RpcException rpc) return rpc;

        // Whatever breaks once the caller has gone breaks because the caller has gone.
        if (context.CancellationToken.IsCancellationRequested || exception is ConnectionResetException or IOException { InnerException: ConnectionAbortedException })
        {
            Cancelled(context.Method, exception.Message);
            return context.Deadline <= DateTime.UtcNow
                ? new RpcException(new Status(StatusCode.DeadlineExceeded, "the deadline passed before the call ended"))
                : new RpcException(new Status(StatusCode.Cancelled, ErrorStatus.ToMessage(new OperationCanceledException())));
        }

        if (exception is OperationCanceledException && _health.Draining.IsCancellationRequested)
            return ErrorStatus.Stopping("the service is stopping; another replica, or this one later, can go on");

        var error = ErrorStatus.ToRpc(exception);
        if (error.StatusCode == StatusCode.Internal) Broken(context.Method, exception);
        else Refused(context.Method, error.StatusCode, exception.Message);
        return error;
    }

    [LoggerMessage(LogLevel.Debug, "{Method} was cancelled: {Message}")]
    private partial void Cancelled(string method, string message);

    [LoggerMessage(LogLevel.Information, "{Method} answered {Code}: {Message}")]
    private partial void Refused(string method, StatusCode code, string message);

    [LoggerMessage(LogLevel.Error, "{Method} failed")]
    private partial void Broken(string method, Exception exception);
}

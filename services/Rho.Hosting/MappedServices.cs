using Grpc.AspNetCore.Server;
using Microsoft.AspNetCore.Routing;

namespace Rho.Hosting;

/// <summary>The gRPC services that the application has mapped.</summary>
internal sealed class MappedServices(EndpointDataSource endpoints)
{
    private readonly Lazy<SortedSet<string>> _names = new(() => new(
        endpoints.Endpoints.Select(endpoint => endpoint.Metadata.GetMetadata<GrpcMethodMetadata>()?.Method.ServiceName).OfType<string>(), StringComparer.Ordinal));

    /// <summary>Their full names, in order.</summary>
    public IReadOnlySet<string> Names => _names.Value;
}

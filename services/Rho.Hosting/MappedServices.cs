using System.Reflection;
using Google.Protobuf.Reflection;
using Grpc.AspNetCore.Server;
using Grpc.Core;
using Microsoft.AspNetCore.Routing;

namespace Rho.Hosting;

/// <summary>The gRPC services that the application has mapped, as their generated code describes them.</summary>
internal sealed class MappedServices(EndpointDataSource endpoints)
{
    private readonly Lazy<IReadOnlyList<ServiceDescriptor>> _descriptors = new(() => Find(endpoints));

    public IReadOnlyList<ServiceDescriptor> Descriptors => _descriptors.Value;

    public IEnumerable<string> Names => Descriptors.Select(service => service.FullName);

    private static List<ServiceDescriptor> Find(EndpointDataSource endpoints) =>
    [
        .. endpoints.Endpoints
            .Select(endpoint => endpoint.Metadata.GetMetadata<GrpcMethodMetadata>()?.ServiceType)
            .OfType<Type>()
            .Distinct()
            .Select(Describe)
            .OfType<ServiceDescriptor>()
            .OrderBy(service => service.FullName, StringComparer.Ordinal),
    ];

    // Generated code: static class Scoring { static ServiceDescriptor Descriptor; [BindServiceMethod(typeof(Scoring), ..)] class ScoringBase }
    private static ServiceDescriptor? Describe(Type? service)
    {
        for (; service is not null; service = service.BaseType)
        {
            if (service.GetCustomAttribute<BindServiceMethodAttribute>(inherit: false) is { } bound)
                return bound.BindType.GetProperty("Descriptor", BindingFlags.Public | BindingFlags.Static)?.GetValue(null) as ServiceDescriptor;
        }

        return null;
    }
}

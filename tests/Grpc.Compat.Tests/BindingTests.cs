using System.Reflection;
using System.Reflection.Metadata;
using System.Reflection.Metadata.Ecma335;
using System.Reflection.PortableExecutable;
using Grpc.AspNetCore.Server;
using Grpc.Core;
using Grpc.Net.Client;
using Grpc.Net.Compression;

namespace Grpc.Compat.Tests;

/// <summary>Everything that the published binaries refer to in the stood-in assemblies is there, by identity and signature.</summary>
public class BindingTests
{
    private static readonly string[] StoodIn = ["Grpc.Core.Api", "Grpc.Net.Common"];

    public static TheoryData<string> Published => [typeof(GrpcChannel).Assembly.Location, typeof(GrpcServiceOptions).Assembly.Location];

    [Theory]
    [MemberData(nameof(Published))]
    public void PublishedAssembly_EveryReference_Resolves(string location)
    {
        using var file = new PEReader(File.OpenRead(location));
        var metadata = file.GetMetadataReader();
        var module = Assembly.LoadFrom(location).ManifestModule;
        // Generic members resolve for any class; their constraints here ask for no more.
        var arguments = Enumerable.Repeat(typeof(object), 8).ToArray();

        var resolved = 0;
        foreach (var handle in metadata.TypeReferences.Where(handle => IsStoodIn(metadata, handle)))
        {
            Assert.NotNull(module.ResolveType(MetadataTokens.GetToken(handle)));
            resolved++;
        }

        foreach (var handle in metadata.MemberReferences.Where(handle => IsStoodIn(metadata, metadata.GetMemberReference(handle).Parent)))
        {
            var member = module.ResolveMember(MetadataTokens.GetToken(handle), arguments, arguments);
            Assert.Equal(metadata.GetString(metadata.GetMemberReference(handle).Name), member?.Name);
            resolved++;
        }

        Assert.True(resolved > 80, $"{resolved} references found");
    }

    [Theory]
    [MemberData(nameof(Published))]
    public void PublishedAssembly_EveryTypeLoads(string location) => Assert.NotEmpty(Assembly.LoadFrom(location).GetTypes());

    [Theory]
    [MemberData(nameof(Published))]
    public void StandIns_HaveTheIdentityThatIsReferredTo(string location)
    {
        Assembly[] standIns = [typeof(CallInvoker).Assembly, typeof(ICompressionProvider).Assembly];
        foreach (var name in Assembly.LoadFrom(location).GetReferencedAssemblies().Where(name => StoodIn.Contains(name.Name)))
            Assert.Contains(name.FullName, standIns.Select(standIn => standIn.FullName));
    }

    private static bool IsStoodIn(MetadataReader metadata, EntityHandle handle) => handle.Kind switch
    {
        HandleKind.AssemblyReference => StoodIn.Contains(metadata.GetString(metadata.GetAssemblyReference((AssemblyReferenceHandle)handle).Name)),
        HandleKind.TypeReference => IsStoodIn(metadata, metadata.GetTypeReference((TypeReferenceHandle)handle).ResolutionScope),
        HandleKind.TypeSpecification => IsStoodIn(metadata, GenericType(metadata, (TypeSpecificationHandle)handle)),
        _ => false,
    };

    // ECMA-335, II.23.2.14: GENERICINST (CLASS | VALUETYPE) TypeDefOrRef ...
    private static EntityHandle GenericType(MetadataReader metadata, TypeSpecificationHandle handle)
    {
        var blob = metadata.GetBlobReader(metadata.GetTypeSpecification(handle).Signature);
        if (blob.ReadSignatureTypeCode() != SignatureTypeCode.GenericTypeInstance) return default(TypeReferenceHandle);
        blob.ReadCompressedInteger();
        return blob.ReadTypeHandle();
    }
}

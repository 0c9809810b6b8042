using Google.Protobuf;
using Google.Protobuf.Reflection;
using Grpc.Core;
using Grpc.Reflection.V1;
using V1Alpha = Grpc.Reflection.V1Alpha;

namespace Rho.Hosting;

/// <summary>Answers reflection requests over the files of the mapped services and all that they import.</summary>
internal sealed class ReflectionAnswers(MappedServices services)
{
    private readonly Lazy<Symbols> _symbols = new(() => new Symbols(services.Descriptors));

    public ServerReflectionResponse Answer(ServerReflectionRequest request)
    {
        var response = new ServerReflectionResponse { ValidHost = request.Host, OriginalRequest = request };
        switch (request.MessageRequestCase)
        {
            case ServerReflectionRequest.MessageRequestOneofCase.ListServices:
                response.ListServicesResponse = new ListServiceResponse { Service = { services.Names.Select(name => new ServiceResponse { Name = name }) } };
                break;
            case ServerReflectionRequest.MessageRequestOneofCase.FileByFilename:
                Files(_symbols.Value.Files.GetValueOrDefault(request.FileByFilename), $"no file '{request.FileByFilename}'");
                break;
            case ServerReflectionRequest.MessageRequestOneofCase.FileContainingSymbol:
                Files(_symbols.Value.Owners.GetValueOrDefault(request.FileContainingSymbol), $"no symbol '{request.FileContainingSymbol}'");
                break;
            case ServerReflectionRequest.MessageRequestOneofCase.FileContainingExtension:
                var extension = request.FileContainingExtension;
                Files(null, $"no extension {extension.ExtensionNumber} of '{extension.ContainingType}'");
                break;
            case ServerReflectionRequest.MessageRequestOneofCase.AllExtensionNumbersOfType:
                var type = request.AllExtensionNumbersOfType;
                if (_symbols.Value.Owners.ContainsKey(type)) response.AllExtensionNumbersResponse = new ExtensionNumberResponse { BaseTypeName = type };
                else Error(StatusCode.NotFound, $"no type '{type}'");
                break;
            default:
                Error(StatusCode.InvalidArgument, "the request asks for nothing; set one of its fields, such as list_services");
                break;
        }

        return response;

        void Files(FileDescriptor? file, string otherwise)
        {
            if (file is null) Error(StatusCode.NotFound, otherwise);
            else response.FileDescriptorResponse = new FileDescriptorResponse { FileDescriptorProto = { Symbols.WithImports(file).Select(f => f.SerializedData) } };
        }

        void Error(StatusCode code, string message) => response.ErrorResponse = new ErrorResponse { ErrorCode = (int)code, ErrorMessage = message };
    }

    /// <summary>Every file by its name, and the file of every service, method, message, field and enum by full name.</summary>
    private sealed class Symbols
    {
        public Symbols(IEnumerable<ServiceDescriptor> services)
        {
            foreach (var file in services.SelectMany(service => WithImports(service.File)))
            {
                if (!Files.TryAdd(file.Name, file)) continue;
                foreach (var service in file.Services)
                {
                    Owners[service.FullName] = file;
                    foreach (var method in service.Methods) Owners[method.FullName] = file;
                }

                foreach (var type in file.EnumTypes) Owners[type.FullName] = file;
                foreach (var message in file.MessageTypes) Add(message);
            }
        }

        public Dictionary<string, FileDescriptor> Files { get; } = new(StringComparer.Ordinal);

        public Dictionary<string, FileDescriptor> Owners { get; } = new(StringComparer.Ordinal);

        /// <summary>A file and all that it imports, itself first.</summary>
        public static IEnumerable<FileDescriptor> WithImports(FileDescriptor file) =>
            new[] { file }.Concat(file.Dependencies.SelectMany(WithImports)).DistinctBy(f => f.Name, StringComparer.Ordinal);

        private void Add(MessageDescriptor message)
        {
            Owners[message.FullName] = message.File;
            foreach (var field in message.Fields.InDeclarationOrder()) Owners[field.FullName] = message.File;
            foreach (var type in message.EnumTypes) Owners[type.FullName] = message.File;
            foreach (var nested in message.NestedTypes) Add(nested);
        }
    }
}

/// <summary>grpc.reflection.v1.</summary>
internal sealed class ReflectionService(ReflectionAnswers answers) : ServerReflection.ServerReflectionBase
{
    public override async Task ServerReflectionInfo(
        IAsyncStreamReader<ServerReflectionRequest> requestStream, IServerStreamWriter<ServerReflectionResponse> responseStream, ServerCallContext context)
    {
        await foreach (var request in requestStream.ReadAllAsync(context.CancellationToken))
            await responseStream.WriteAsync(answers.Answer(request), context.CancellationToken);
    }
}

/// <summary>grpc.reflection.v1alpha, which many tools still ask first. Its messages are those of v1, byte for byte.</summary>
internal sealed class ReflectionAlphaService(ReflectionAnswers answers) : V1Alpha.ServerReflection.ServerReflectionBase
{
    public override async Task ServerReflectionInfo(
        IAsyncStreamReader<V1Alpha.ServerReflectionRequest> requestStream, IServerStreamWriter<V1Alpha.ServerReflectionResponse> responseStream, ServerCallContext context)
    {
        await foreach (var request in requestStream.ReadAllAsync(context.CancellationToken))
        {
            var answer = answers.Answer(ServerReflectionRequest.Parser.ParseFrom(request.ToByteString()));
            await responseStream.WriteAsync(V1Alpha.ServerReflectionResponse.Parser.ParseFrom(answer.ToByteString()), context.CancellationToken);
        }
    }
}

using Grpc.Core;
using Grpc.Core.Utils;

namespace Grpc.Compat.Tests;

/// <summary>What the types do by themselves, as the published ones do.</summary>
public class ApiTests
{
    [Theory]
    [InlineData("abc", true)]
    [InlineData("ABC-_.9", true)]
    [InlineData("", true)]
    [InlineData("a b", false)]
    [InlineData("ä", false)]
    [InlineData("a:b", false)]
    public void MetadataKey_Characters(string key, bool valid)
    {
        if (valid) Assert.Equal(key.ToLowerInvariant(), new Metadata.Entry(key, "").Key);
        else Assert.Throws<ArgumentException>(() => new Metadata.Entry(key, ""));
    }

    [Fact]
    public void MetadataKey_SuffixSaysBinary()
    {
        Assert.Throws<ArgumentException>(() => new Metadata.Entry("a-bin", "text"));
        Assert.Throws<ArgumentException>(() => new Metadata.Entry("a", new byte[1]));
        var entry = new Metadata.Entry("a-BIN", [1]);
        Assert.True(entry.IsBinary);
        Assert.Throws<InvalidOperationException>(() => entry.Value);
        Assert.Throws<ArgumentNullException>(() => new Metadata.Entry(null!, ""));
        Assert.Throws<ArgumentNullException>(() => new Metadata.Entry("a", (string)null!));
    }

    [Fact]
    public void MetadataBytes_AreCopiedInAndOut()
    {
        byte[] bytes = [1, 2];
        var entry = new Metadata.Entry("a-bin", bytes);
        bytes[0] = 9;
        entry.ValueBytes[1] = 9;
        Assert.Equal([1, 2], entry.ValueBytes);
        Assert.Equal("x"u8.ToArray(), new Metadata.Entry("a", "x").ValueBytes);
    }

    [Fact]
    public void Metadata_LastEntryOfAKeyCounts()
    {
        var metadata = new Metadata { { "a", "1" }, { "b", "2" }, { "A", "3" } };
        Assert.Equal("3", metadata.GetValue("a"));
        Assert.Equal(["1", "3"], metadata.GetAll("A").Select(entry => entry.Value));
        Assert.Null(metadata.Get("c"));
        Assert.Null(metadata.GetValueBytes("c"));
        metadata.RemoveAt(2);
        Assert.Equal("1", metadata.GetValue("A"));
        Assert.Equal(2, metadata.Count);
    }

    [Fact]
    public void MetadataEmpty_IsReadOnly()
    {
        Assert.True(Metadata.Empty.IsReadOnly);
        Assert.Throws<InvalidOperationException>(() => Metadata.Empty.Add("a", "b"));
        Assert.Throws<InvalidOperationException>(() => Metadata.Empty.Clear());
        Assert.Throws<ArgumentNullException>(() => new Metadata().Add(null!));
    }

    [Fact]
    public void CallOptions_WithOneThing_KeepsTheOthers()
    {
        using var cancel = new CancellationTokenSource();
        var headers = new Metadata();
        var options = new CallOptions(headers, DateTime.UnixEpoch, cancel.Token).WithWaitForReady();
        var changed = options.WithDeadline(DateTime.MaxValue).WithWriteOptions(new WriteOptions(WriteFlags.NoCompress));
        Assert.Equal((headers, DateTime.MaxValue, cancel.Token, true), (changed.Headers, changed.Deadline, changed.CancellationToken, changed.IsWaitForReady));
        Assert.Equal(WriteFlags.NoCompress, changed.WriteOptions!.Flags);
        Assert.Null(options.WriteOptions);
        Assert.False(changed.WithWaitForReady(false).IsWaitForReady);
        Assert.Equal(default, default(CallOptions).CancellationToken);
    }

    [Fact]
    public void Status_ToString_NamesCodeAndDetail()
    {
        Assert.Equal("Status(StatusCode=\"NotFound\", Detail=\"x\")", new Status(StatusCode.NotFound, "x").ToString());
        var error = new RpcException(new Status(StatusCode.Internal, "y", new IOException("z")));
        Assert.Equal("Status(StatusCode=\"Internal\", Detail=\"y\", DebugException=\"System.IO.IOException: z\")", error.Message);
        Assert.IsType<IOException>(error.InnerException);
        Assert.Same(Metadata.Empty, error.Trailers);
    }

    [Fact]
    public void Preconditions_ThrowWhatTheySay()
    {
        Assert.Equal("p", Assert.Throws<ArgumentNullException>(() => GrpcPreconditions.CheckNotNull<string>(null!, "p")).ParamName);
        Assert.Equal("m", Assert.Throws<ArgumentException>(() => GrpcPreconditions.CheckArgument(false, "m")).Message);
        Assert.Equal("m", Assert.Throws<InvalidOperationException>(() => GrpcPreconditions.CheckState(false, "m")).Message);
        Assert.Equal(3, GrpcPreconditions.CheckNotNull(3, "p"));
    }

    [Fact]
    public void AuthContext_WithoutIdentity_IsNotAuthenticated()
    {
        var property = AuthProperty.Create("name", "value"u8.ToArray());
        var context = new AuthContext(null, new Dictionary<string, List<AuthProperty>> { ["name"] = [property] });
        Assert.False(context.IsPeerAuthenticated);
        Assert.Empty(context.PeerIdentity);
        Assert.Equal("value", Assert.Single(context.FindPropertiesByName("name")).Value);
        Assert.Empty(context.FindPropertiesByName("other"));
        Assert.Single(new AuthContext("name", new Dictionary<string, List<AuthProperty>> { ["name"] = [property] }).PeerIdentity);
    }

    [Fact]
    public void ServiceDefinition_BindsEachMethodOnce()
    {
        var binder = new Counter();
        Echo.BindService(new EchoService(new())).BindService(binder);
        Assert.Equal(["/compat.v1.Echo/Unary", "/compat.v1.Echo/Expand", "/compat.v1.Echo/Collect", "/compat.v1.Echo/Chat"], binder.Methods);
        var method = new Method<string, string>(MethodType.Unary, "s", "m", Marshallers.StringMarshaller, Marshallers.StringMarshaller);
        var builder = ServerServiceDefinition.CreateBuilder().AddMethod(method, (request, _) => Task.FromResult(request));
        Assert.Throws<ArgumentException>(() => builder.AddMethod(method, (request, _) => Task.FromResult(request)));
    }

    [Fact]
    public void Credentials_TellAConfiguratorWhatTheyAre()
    {
        Assert.Throws<ArgumentException>(() => CallCredentials.Compose(CallCredentials.FromInterceptor((_, _) => Task.CompletedTask)));
        var pair = new KeyCertificatePair("chain", "key");
        var configurator = new Configurator();
        new SslCredentials("roots", pair).InternalPopulateConfiguration(configurator, configurator);
        Assert.Equal(("roots", pair), configurator.Ssl);
    }

    private sealed class Counter : ServiceBinderBase
    {
        public List<string> Methods { get; } = [];

        public override void AddMethod<TRequest, TResponse>(Method<TRequest, TResponse> method, UnaryServerMethod<TRequest, TResponse>? handler) => Methods.Add(method.FullName);

        public override void AddMethod<TRequest, TResponse>(Method<TRequest, TResponse> method, ClientStreamingServerMethod<TRequest, TResponse>? handler) => Methods.Add(method.FullName);

        public override void AddMethod<TRequest, TResponse>(Method<TRequest, TResponse> method, ServerStreamingServerMethod<TRequest, TResponse>? handler) => Methods.Add(method.FullName);

        public override void AddMethod<TRequest, TResponse>(Method<TRequest, TResponse> method, DuplexStreamingServerMethod<TRequest, TResponse>? handler) => Methods.Add(method.FullName);
    }

    private sealed class Configurator : ChannelCredentialsConfiguratorBase
    {
        public (string?, KeyCertificatePair?) Ssl { get; private set; }

        public override void SetInsecureCredentials(object state) => throw new NotSupportedException();

        public override void SetSslCredentials(object state, string? rootCertificates, KeyCertificatePair? keyCertificatePair, VerifyPeerCallback? verifyPeerCallback) => Ssl = (rootCertificates, keyCertificatePair);

        public override void SetCompositeCredentials(object state, ChannelCredentials channelCredentials, CallCredentials callCredentials) => throw new NotSupportedException();
    }
}

using Grpc.Core.Utils;

namespace Grpc.Core;

/// <summary>Adds credentials to a call's metadata before it is sent.</summary>
public delegate Task AsyncAuthInterceptor(AuthInterceptorContext context, Metadata metadata);

/// <summary>Decides whether a server's certificate is accepted.</summary>
public delegate bool VerifyPeerCallback(VerifyPeerContext context);

/// <summary>The call that credentials are asked for.</summary>
public class AuthInterceptorContext
{
    /// <summary>A call that cannot be cancelled.</summary>
    public AuthInterceptorContext(string serviceUrl, string methodName)
        : this(serviceUrl, methodName, CancellationToken.None)
    {
    }

    /// <summary>A call with its token.</summary>
    public AuthInterceptorContext(string serviceUrl, string methodName, CancellationToken cancellationToken)
    {
        ServiceUrl = GrpcPreconditions.CheckNotNull(serviceUrl, nameof(serviceUrl));
        MethodName = GrpcPreconditions.CheckNotNull(methodName, nameof(methodName));
        CancellationToken = cancellationToken;
    }

    /// <summary>The service's URL.</summary>
    public string ServiceUrl { get; }

    /// <summary>The method's name.</summary>
    public string MethodName { get; }

    /// <summary>The call's token.</summary>
    public CancellationToken CancellationToken { get; }
}

/// <summary>A client certificate and its key, PEM.</summary>
public sealed class KeyCertificatePair(string certificateChain, string privateKey)
{
    /// <summary>The certificate chain, PEM.</summary>
    public string CertificateChain { get; } = GrpcPreconditions.CheckNotNull(certificateChain, nameof(certificateChain));

    /// <summary>The private key, PEM.</summary>
    public string PrivateKey { get; } = GrpcPreconditions.CheckNotNull(privateKey, nameof(privateKey));
}

/// <summary>The server whose certificate is to be judged.</summary>
public class VerifyPeerContext
{
    internal VerifyPeerContext(string targetName, string peerPem)
    {
        TargetName = targetName;
        PeerPem = peerPem;
    }

    /// <summary>The name that the client connects to.</summary>
    public string TargetName { get; }

    /// <summary>The server's certificate, PEM.</summary>
    public string PeerPem { get; }
}

/// <summary>Credentials that travel with single calls, such as tokens.</summary>
public abstract class CallCredentials
{
    /// <summary>Two or more credentials as one.</summary>
    public static CallCredentials Compose(params CallCredentials[] credentials) => new Composite(credentials);

    /// <summary>Credentials that a function adds to each call's metadata.</summary>
    public static CallCredentials FromInterceptor(AsyncAuthInterceptor interceptor) => new Intercepting(interceptor);

    /// <summary>Tells a transport what the credentials are.</summary>
    public abstract void InternalPopulateConfiguration(CallCredentialsConfiguratorBase configurator, object? state);

    private sealed class Composite : CallCredentials
    {
        private readonly IReadOnlyList<CallCredentials> _credentials;

        public Composite(CallCredentials[] credentials)
        {
            GrpcPreconditions.CheckArgument(credentials.Length >= 2, "Composite credentials object can only be created from 2 or more credentials.");
            _credentials = [.. credentials];
        }

        public override void InternalPopulateConfiguration(CallCredentialsConfiguratorBase configurator, object? state) =>
            configurator.SetCompositeCredentials(state, _credentials);
    }

    private sealed class Intercepting(AsyncAuthInterceptor interceptor) : CallCredentials
    {
        private readonly AsyncAuthInterceptor _interceptor = GrpcPreconditions.CheckNotNull(interceptor, nameof(interceptor));

        public override void InternalPopulateConfiguration(CallCredentialsConfiguratorBase configurator, object? state) =>
            configurator.SetAsyncAuthInterceptorCredentials(state, _interceptor);
    }
}

/// <summary>What a transport implements to learn what call credentials are.</summary>
public abstract class CallCredentialsConfiguratorBase
{
    /// <summary>They are several.</summary>
    public abstract void SetCompositeCredentials(object? state, IReadOnlyList<CallCredentials> credentials);

    /// <summary>They are a function over the metadata.</summary>
    public abstract void SetAsyncAuthInterceptorCredentials(object? state, AsyncAuthInterceptor interceptor);
}

/// <summary>Credentials of a connection.</summary>
public abstract class ChannelCredentials
{
    /// <summary>No transport security.</summary>
    public static ChannelCredentials Insecure { get; } = new InsecureCredentials();

    /// <summary>TLS with the system's root certificates.</summary>
    public static ChannelCredentials SecureSsl { get; } = new SslCredentials();

    /// <summary>Credentials of a connection together with credentials for each of its calls.</summary>
    public static ChannelCredentials Create(ChannelCredentials channelCredentials, CallCredentials callCredentials) =>
        new Composite(channelCredentials, callCredentials);

    /// <summary>Tells a transport what the credentials are.</summary>
    public abstract void InternalPopulateConfiguration(ChannelCredentialsConfiguratorBase configurator, object state);

    private sealed class InsecureCredentials : ChannelCredentials
    {
        public override void InternalPopulateConfiguration(ChannelCredentialsConfiguratorBase configurator, object state) =>
            configurator.SetInsecureCredentials(state);
    }

    private sealed class Composite(ChannelCredentials channelCredentials, CallCredentials callCredentials) : ChannelCredentials
    {
        private readonly ChannelCredentials _channel = GrpcPreconditions.CheckNotNull(channelCredentials, nameof(channelCredentials));
        private readonly CallCredentials _call = GrpcPreconditions.CheckNotNull(callCredentials, nameof(callCredentials));

        public override void InternalPopulateConfiguration(ChannelCredentialsConfiguratorBase configurator, object state) =>
            configurator.SetCompositeCredentials(state, _channel, _call);
    }
}

/// <summary>TLS, with root certificates or a client certificate of one's own.</summary>
public sealed class SslCredentials(string? rootCertificates, KeyCertificatePair? keyCertificatePair, VerifyPeerCallback? verifyPeerCallback) : ChannelCredentials
{
    /// <summary>TLS with the system's root certificates.</summary>
    public SslCredentials()
        : this(null, null, null)
    {
    }

    /// <summary>TLS with root certificates (PEM).</summary>
    public SslCredentials(string rootCertificates)
        : this(rootCertificates, null, null)
    {
    }

    /// <summary>Mutual TLS: root certificates (PEM) and the client's certificate.</summary>
    public SslCredentials(string rootCertificates, KeyCertificatePair keyCertificatePair)
        : this(rootCertificates, keyCertificatePair, null)
    {
    }

    /// <summary>The root certificates, PEM; null for the system's.</summary>
    public string? RootCertificates => rootCertificates;

    /// <summary>The client's certificate, if it has one.</summary>
    public KeyCertificatePair? KeyCertificatePair => keyCertificatePair;

    /// <inheritdoc/>
    public override void InternalPopulateConfiguration(ChannelCredentialsConfiguratorBase configurator, object state) =>
        configurator.SetSslCredentials(state, rootCertificates, keyCertificatePair, verifyPeerCallback);
}

/// <summary>What a transport implements to learn what a connection's credentials are.</summary>
public abstract class ChannelCredentialsConfiguratorBase
{
    /// <summary>There are none.</summary>
    public abstract void SetInsecureCredentials(object state);

    /// <summary>TLS.</summary>
    public abstract void SetSslCredentials(object state, string? rootCertificates, KeyCertificatePair? keyCertificatePair, VerifyPeerCallback? verifyPeerCallback);

    /// <summary>Credentials of the connection and of its calls.</summary>
    public abstract void SetCompositeCredentials(object state, ChannelCredentials channelCredentials, CallCredentials callCredentials);
}

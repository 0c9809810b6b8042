using System.Text;
using Grpc.Core.Utils;

namespace Grpc.Core;

/// <summary>What is known of a call's peer.</summary>
public class AuthContext(string? peerIdentityPropertyName, Dictionary<string, List<AuthProperty>> properties)
{
    private readonly Dictionary<string, List<AuthProperty>> _properties = GrpcPreconditions.CheckNotNull(properties, nameof(properties));

    /// <summary>Whether the peer has proved who it is.</summary>
    public bool IsPeerAuthenticated => PeerIdentityPropertyName is not null;

    /// <summary>The property that says who the peer is; null when it has not proved it.</summary>
    public string? PeerIdentityPropertyName { get; } = peerIdentityPropertyName;

    /// <summary>Who the peer is; empty when it has not proved it.</summary>
    public IEnumerable<AuthProperty> PeerIdentity => PeerIdentityPropertyName is null ? [] : _properties[PeerIdentityPropertyName];

    /// <summary>All that is known.</summary>
    public IEnumerable<AuthProperty> Properties => _properties.Values.SelectMany(values => values);

    /// <summary>All values of one property.</summary>
    public IEnumerable<AuthProperty> FindPropertiesByName(string propertyName) => _properties.GetValueOrDefault(propertyName) ?? [];
}

/// <summary>One thing known of a peer.</summary>
public class AuthProperty
{
    private readonly byte[] _bytes;

    private AuthProperty(string name, byte[] bytes)
    {
        Name = GrpcPreconditions.CheckNotNull(name, nameof(name));
        _bytes = bytes;
    }

    /// <summary>What it is.</summary>
    public string Name { get; }

    /// <summary>The value as UTF-8 text.</summary>
    public string Value => Encoding.UTF8.GetString(_bytes);

    /// <summary>A copy of the value's bytes.</summary>
    public byte[] ValueBytes => [.. _bytes];

    /// <summary>A property; the bytes are copied.</summary>
    public static AuthProperty Create(string name, byte[] valueBytes) => new(name, [.. GrpcPreconditions.CheckNotNull(valueBytes, nameof(valueBytes))]);
}

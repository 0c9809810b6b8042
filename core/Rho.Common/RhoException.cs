namespace Rho;

/// <summary>
/// Something the user can put right: a bad value, file or address. The message is one line that says what was wrong, where,
/// and what would be right. The CLI prints it and exits with 1; services answer INVALID_ARGUMENT, unless a subclass says otherwise.
/// </summary>
public class RhoException : Exception
{
    public RhoException(string message) : base(message) { }

    public RhoException(string message, Exception inner) : base(message, inner) { }
}

/// <summary>What was asked for does not exist (NOT_FOUND, HTTP 404).</summary>
public sealed class NotFoundException(string message) : RhoException(message);

/// <summary>Two parts do not fit together, such as tokenizers or fingerprints that differ (FAILED_PRECONDITION, HTTP 409).</summary>
public sealed class MismatchException(string message) : RhoException(message);

/// <summary>Content does not have the checksum it was announced with (DATA_LOSS, HTTP 400).</summary>
public sealed class CorruptDataException(string message) : RhoException(message);

/// <summary>A queue is full (RESOURCE_EXHAUSTED, HTTP 429).</summary>
public sealed class OverloadedException(string message, TimeSpan retryAfter) : RhoException(message)
{
    /// <summary>When a retry has a chance; sent as retry-after in seconds.</summary>
    public TimeSpan RetryAfter { get; } = retryAfter;
}

/// <summary>The service cannot answer now, because it starts, stops or lost something it needs (UNAVAILABLE, HTTP 503).</summary>
public sealed class UnavailableException(string message) : RhoException(message);

/// <summary>The caller did not say who it is, or with a wrong key (UNAUTHENTICATED, HTTP 401).</summary>
public sealed class UnauthenticatedException(string message) : RhoException(message);

using System.Globalization;
using System.Text;

namespace Rho;

/// <summary>
/// Something the user can put right: a bad value, file or address. The message is one line that says what was wrong, where,
/// and what would be right. The CLI prints it and exits with 1; services answer INVALID_ARGUMENT, unless a subclass says otherwise.
/// </summary>
public class RhoException : Exception
{
    private const int LongestMessage = 2000;

    public RhoException(string message) : base(OneLine(message)) { }

    public RhoException(string message, Exception inner) : base(OneLine(message), inner) { }

    /// <summary>A message may quote what a file holds: line breaks and other control characters become escapes, and endless ones end.</summary>
    private static string OneLine(string message)
    {
        if (message.Length > LongestMessage) message = message[..LongestMessage] + "...";
        if (!message.AsSpan().ContainsAnyInRange('\0', '\u001F')) return message;
        var line = new StringBuilder(message.Length + 16);
        foreach (var character in message)
        {
            switch (character)
            {
                case '\n':
                    line.Append("\\n");
                    break;
                case '\r':
                    line.Append("\\r");
                    break;
                case '\t':
                    line.Append("\\t");
                    break;
                case < ' ':
                    line.Append(CultureInfo.InvariantCulture, $"\\u{(int)character:x4}");
                    break;
                default:
                    line.Append(character);
                    break;
            }
        }

        return line.ToString();
    }
}

/// <summary>A field of a request has a value that cannot be used, or is not supported (INVALID_ARGUMENT, HTTP 400).</summary>
public sealed class InvalidFieldException(string field, string problem) : RhoException($"{field}: {problem}")
{
    /// <summary>The field as the caller wrote it, such as "top_p" or "messages[0].role".</summary>
    public string Field { get; } = field;
}

/// <summary>Prompt and continuation are longer than the model's context (INVALID_ARGUMENT, HTTP 400).</summary>
public sealed class ContextLengthException(string message) : RhoException(message);

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

namespace Rho.Serving;

/// <summary>A field of a request has a value that cannot be used, or is not supported.</summary>
public sealed class InvalidFieldException(string field, string problem) : RhoException($"{field}: {problem}")
{
    /// <summary>The field as the caller wrote it, such as "top_p" or "messages[0].role".</summary>
    public string Field { get; } = field;
}

/// <summary>Prompt and continuation are longer than the model's context.</summary>
public sealed class ContextLengthException(string message) : RhoException(message);

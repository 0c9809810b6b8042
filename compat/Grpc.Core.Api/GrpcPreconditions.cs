using System.Diagnostics.CodeAnalysis;

namespace Grpc.Core.Utils;

/// <summary>Checks of arguments and state; generated code uses them.</summary>
public static class GrpcPreconditions
{
    /// <summary>Throws <see cref="ArgumentException"/> unless the condition holds.</summary>
    public static void CheckArgument([DoesNotReturnIf(false)] bool condition)
    {
        if (!condition) throw new ArgumentException(message: null);
    }

    /// <summary>Throws <see cref="ArgumentException"/> with a message unless the condition holds.</summary>
    public static void CheckArgument([DoesNotReturnIf(false)] bool condition, string errorMessage)
    {
        if (!condition) throw new ArgumentException(errorMessage);
    }

    /// <summary>The reference; throws <see cref="ArgumentNullException"/> when it is null.</summary>
    public static T CheckNotNull<T>(T reference) => reference ?? throw new ArgumentNullException();

    /// <summary>The reference; throws <see cref="ArgumentNullException"/> that names the parameter when it is null.</summary>
    public static T CheckNotNull<T>(T reference, string paramName) => reference ?? throw new ArgumentNullException(paramName);

    /// <summary>Throws <see cref="InvalidOperationException"/> unless the condition holds.</summary>
    public static void CheckState([DoesNotReturnIf(false)] bool condition)
    {
        if (!condition) throw new InvalidOperationException();
    }

    /// <summary>Throws <see cref="InvalidOperationException"/> with a message unless the condition holds.</summary>
    public static void CheckState([DoesNotReturnIf(false)] bool condition, string errorMessage)
    {
        if (!condition) throw new InvalidOperationException(errorMessage);
    }
}

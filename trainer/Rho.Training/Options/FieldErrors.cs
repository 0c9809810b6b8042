namespace Rho.Training;

/// <summary>Errors of what a run file names, with the field that names it.</summary>
internal static class FieldErrors
{
    /// <summary>Opens something; an error that does not name the field already gets it in front, and stays of its kind.</summary>
    internal static T Named<T>(string field, Func<T> open)
    {
        try
        {
            return open();
        }
        catch (RhoException e) when (!e.Message.StartsWith(field, StringComparison.Ordinal))
        {
            throw With(field, e);
        }
    }

    internal static async Task<T> NamedAsync<T>(string field, Func<Task<T>> open)
    {
        try
        {
            return await open();
        }
        catch (RhoException e) when (!e.Message.StartsWith(field, StringComparison.Ordinal))
        {
            throw With(field, e);
        }
    }

    private static RhoException With(string field, RhoException e)
    {
        var message = $"{field}: {e.Message}";
        return e switch
        {
            NotFoundException => new NotFoundException(message),
            MismatchException => new MismatchException(message),
            CorruptDataException => new CorruptDataException(message),
            UnavailableException => new UnavailableException(message),
            _ => new RhoException(message, e),
        };
    }
}

namespace Rho.Data.Tests;

/// <summary>A test that needs files of other programs; it is skipped, with the reason, where one of them is absent.</summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class FileFactAttribute : FactAttribute
{
    public FileFactAttribute(params string[] paths)
    {
        var missing = paths.Where(path => !Path.Exists(path)).ToArray();
        if (missing.Length > 0) Skip = $"not there: {string.Join(", ", missing)}";
    }
}

using System.CommandLine;
using System.ComponentModel;
using System.Reflection;

namespace Rho.Cli.Commands;

/// <summary>Makes options of the settings in a record: what they do is said there ([Description]), and their defaults are the record's.</summary>
internal static class RecordOptions<TRecord>
{
    /// <param name="property">The setting's name in the record.</param>
    /// <param name="value">The record's default in the option's unit. Help shows it unless it is the type's own: no, 0, none.</param>
    public static Option<T> Create<T>(string name, string property, T value, string? helpName = null)
    {
        var description = typeof(TRecord).GetProperty(property)?.GetCustomAttribute<DescriptionAttribute>()?.Description
            ?? throw new InvalidOperationException($"{typeof(TRecord).Name}.{property} has no description for {name}");
        var option = new Option<T>(name) { Description = description, HelpName = helpName };
        if (!EqualityComparer<T>.Default.Equals(value, default)) option.DefaultValueFactory = _ => value;
        return option;
    }
}

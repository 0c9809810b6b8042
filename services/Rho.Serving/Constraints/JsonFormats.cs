namespace Rho.Serving.Constraints;

/// <summary>Formats of strings as regular expressions. Each describes texts that every validator takes, not every text that one does.</summary>
internal static class JsonFormats
{
    private const string Year = @"(\d{3}[1-9]|\d{2}[1-9]0|\d[1-9]00|[1-9]000)";
    private const string LeapYear = @"(\d\d(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)";
    private const string Date = $@"({Year}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))|{LeapYear}-02-29)";
    private const string Time = @"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)";
    private const string Number = @"\d{1,9}";
    private const string DateSpan = $"({Number}Y({Number}M({Number}D)?)?|{Number}M({Number}D)?|{Number}D)";
    private const string TimeSpan = $"T({Number}H({Number}M({Number}S)?)?|{Number}M({Number}S)?|{Number}S)";
    private const string Label = "[A-Za-z0-9]{1,20}(-[A-Za-z0-9]{1,20}){0,1}";
    private const string Hostname = $@"({Label}\.){{0,4}}[A-Za-z][A-Za-z0-9]{{1,20}}";
    private const string Octet = @"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)";
    private const string Ipv4 = $@"({Octet}\.){{3}}{Octet}";
    private const string Hex = "[0-9a-fA-F]{1,4}";
    private const string PathCharacter = "([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
    private const string Atom = "[A-Za-z0-9_%+-]{1,20}";

    private static readonly Dictionary<string, string> s_patterns = new(StringComparer.Ordinal)
    {
        ["date"] = Date,
        ["time"] = Time,
        ["date-time"] = $"{Date}T{Time}",
        ["duration"] = $"P({Number}W|{DateSpan}({TimeSpan})?|{TimeSpan})",
        ["uuid"] = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        ["email"] = $@"{Atom}(\.{Atom}){{0,2}}@({Label}\.){{1,4}}[A-Za-z]{{2,20}}",
        ["hostname"] = Hostname,
        ["ipv4"] = Ipv4,
        ["ipv6"] = $"(({Hex}:){{7}}{Hex}|({Hex}:){{1,7}}:|({Hex}:){{1,6}}:{Hex}|({Hex}:){{1,5}}(:{Hex}){{1,2}}|({Hex}:){{1,4}}(:{Hex}){{1,3}}"
            + $"|({Hex}:){{1,3}}(:{Hex}){{1,4}}|({Hex}:){{1,2}}(:{Hex}){{1,5}}|{Hex}:(:{Hex}){{1,6}}|:((:{Hex}){{1,7}}|:))",
        ["uri"] = $@"[A-Za-z][A-Za-z0-9+.-]{{0,15}}:(//({Hostname}|{Ipv4})(:\d{{1,4}})?(/{PathCharacter}*)*|{PathCharacter}+)(\?({PathCharacter}|[/?])*)?(#({PathCharacter}|[/?])*)?",
    };

    /// <summary>The pattern of a format; null for one that is not known, which says nothing about which texts are right.</summary>
    public static string? Pattern(string format) => s_patterns.GetValueOrDefault(format);
}

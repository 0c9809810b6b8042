namespace Rho.EndToEnd.Tests;

public class UsageTests
{
    [Fact]
    public async Task Rho_WithoutArguments_ShowsHelp()
    {
        var output = await RhoProgram.SucceedAsync();
        Assert.Contains("Commands:", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Rho_UnknownCommand_SuggestsAndReturnsTwo()
    {
        var result = await RhoProgram.RunAsync("doctr");
        Assert.Equal(2, result.ExitCode);
        Assert.Contains("did you mean 'doctor'?", Assert.Single(result.ErrorLines), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Doctor_ThisMachine_NamesWhatItFound()
    {
        var output = await RhoProgram.SucceedAsync("doctor");
        foreach (var row in (string[])["processor", "features", "memory", "libtorch", "GPU", "Redis"]) Assert.Contains($"{row} ", output, StringComparison.Ordinal);
    }
}

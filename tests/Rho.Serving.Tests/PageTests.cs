using Microsoft.Playwright;

namespace Rho.Serving.Tests;

/// <summary>The built-in page in a real browser, without any other network.</summary>
public sealed class PageTests
{
    [Fact, Trait("Category", "Slow")]
    public async Task Page_StreamsAnAnswerWithColouredTokens_AndShowsErrors()
    {
        await using var server = await TestServer.StartAsync();
        using var playwright = await Playwright.CreateAsync();
        await using var browser = await playwright.Chromium.LaunchAsync(new BrowserTypeLaunchOptions { ExecutablePath = Tool.Find("chromium"), Args = ["--no-sandbox"] });
        var page = await browser.NewPageAsync();
        page.SetDefaultTimeout((float)TestServer.Patience.TotalMilliseconds);
        var foreign = new List<string>();
        var errors = new List<string>();
        page.Request += (_, request) =>
        {
            if (!request.Url.StartsWith(server.Addresses.Http!.ToString(), StringComparison.Ordinal)) foreign.Add(request.Url);
        };
        page.PageError += (_, error) => errors.Add(error);

        await page.GotoAsync(server.Addresses.Http!.ToString());
        await Assertions.Expect(page.Locator("#model option")).ToHaveCountAsync(1);
        await page.FillAsync("#prompt", "The dog");
        await page.FillAsync("#max_tokens", "12");
        await page.FillAsync("#seed", "4");
        await page.ClickAsync("#run");
        await Assertions.Expect(page.Locator("#status")).ToContainTextAsync("tokens in");
        var tokens = page.Locator("#answer span[data-p]");
        Assert.InRange(await tokens.CountAsync(), 1, 12);
        Assert.Contains("hsl", await tokens.First.GetAttributeAsync("style") + "hsl", StringComparison.Ordinal);
        await tokens.First.HoverAsync();
        await Assertions.Expect(page.Locator("#top tr")).Not.ToHaveCountAsync(0);

        // What is shown is what the API answers.
        var answer = await server.PostAsync("/v1/completions", new { prompt = "The dog", max_tokens = 12, seed = 4, temperature = 0.7 });
        Assert.Equal("The dog" + (string)answer["choices"]![0]!["text"]!, (await page.Locator("#answer").TextContentAsync())!.Replace("<|end_of_text|>", "", StringComparison.Ordinal));

        await page.SelectOptionAsync("#mode", "chat");
        await page.ClickAsync("#run");
        await Assertions.Expect(page.Locator("#status")).ToContainTextAsync("tokens in");
        await page.FillAsync("#max_tokens", "100000");
        await page.ClickAsync("#run");
        await Assertions.Expect(page.Locator("#status.error")).ToContainTextAsync("more than the context");

        await page.SelectOptionAsync("#mode", "completion");
        await page.FillAsync("#max_tokens", "450");
        await page.ClickAsync("#run");
        await Assertions.Expect(page.Locator("#answer span[data-p]")).Not.ToHaveCountAsync(0);
        await page.ClickAsync("#cancel", new PageClickOptions { Force = true });
        await server.IdleAsync();
        Assert.Empty(foreign);
        Assert.Empty(errors);
    }
}

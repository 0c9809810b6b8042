using System.CommandLine;
using Rho.Tokenization;

namespace Rho.Cli.Commands;

/// <summary>rho tokenize: text to tokens and back, for a pipe.</summary>
internal static class TokenizeCommand
{
    public static Command Create()
    {
        var files = new Argument<string[]>("FILE") { Description = "Files to read; standard input without any, or where it is -", Arity = ArgumentArity.ZeroOrMore };
        var tokenizer = new Option<string>("--tokenizer") { Description = "Folder with tokenizer.json or tokenizer.model", HelpName = "DIR", Required = true };
        var ids = new Option<bool>("--ids") { Description = "Print token ids, the texts apart by lines (what is printed without any of these)" };
        var tokens = new Option<bool>("--tokens") { Description = "Print tokens as the vocabulary spells them" };
        var offsets = new Option<bool>("--offsets") { Description = "Print a line for each token: id, first character and the one after the last, and the token" };
        var count = new Option<bool>("--count") { Description = "Print how many texts, tokens and bytes there are" };
        var text = new Option<bool>("--text") { Description = "Print the text that --chat makes, not its tokens" };
        var decode = new Option<bool>("--decode") { Description = "Read token ids, and print their text" };
        var whole = new Option<bool>("--whole") { Description = "Take a file as one text, not each of its lines" };
        var special = new Option<bool>("--special") { Description = "Add the tokens that the tokenizer puts around a text; with --decode, leave out special ones" };
        var chat = new Option<bool>("--chat") { Description = "Read conversations as JSON, and encode what the chat template makes of them" };
        var answer = new Option<bool>("--generation-prompt") { Description = "With --chat: end with what begins the model's answer" };
        var command = new ExampleCommand(
            "tokenize", "Turn text into tokens and back. Each line is a text of its own.",
            "echo 'Hello world' | rho tokenize --tokenizer tokenizer",
            "echo 'Hello world' | rho tokenize --tokenizer tokenizer | rho tokenize --tokenizer tokenizer --decode",
            "rho tokenize --tokenizer tokenizer --count --whole book.txt notes.md",
            "rho tokenize --tokenizer tokenizer --offsets questions.txt",
            """echo '[{"role": "user", "content": "Hi"}]' | rho tokenize --tokenizer tokenizer --chat --generation-prompt --text""")
        { files, tokenizer, ids, tokens, offsets, count, text, decode, whole, special, chat, answer };
        Option<bool>[] prints = [ids, tokens, offsets, count, text];
        command.Validators.Add(result =>
        {
            var chosen = prints.Where(result.GetValue).Select(option => option.Name).ToList();
            if (chosen.Count > 1) result.AddError($"{chosen[0]} and {chosen[1]} exclude each other");
            if (result.GetValue(decode) && (chosen.Count > 0 || result.GetValue(chat))) result.AddError($"--decode goes without {(chosen.Count > 0 ? chosen[0] : "--chat")}");
            if (!result.GetValue(chat) && (result.GetValue(answer) || result.GetValue(text))) result.AddError($"{(result.GetValue(text) ? "--text" : "--generation-prompt")} goes with --chat");
            if (result.GetValue(chat) && result.GetValue(special)) result.AddError("--special goes without --chat: a chat template has its own special tokens");
        });
        command.SetAction(async (result, cancellation) =>
        {
            var print = result.GetValue(tokens) ? TokenizedForm.Tokens
                : result.GetValue(offsets) ? TokenizedForm.Offsets
                : result.GetValue(count) ? TokenizedForm.Count
                : result.GetValue(text) ? TokenizedForm.Text
                : TokenizedForm.Ids;
            var pipe = new TokenPipe(Tokenizer.Load(result.GetValue(tokenizer)!))
            {
                Form = print,
                Decode = result.GetValue(decode),
                Whole = result.GetValue(whole),
                Special = result.GetValue(special),
                Chat = result.GetValue(chat),
                GenerationPrompt = result.GetValue(answer),
            };
            await using var output = Console.OpenStandardOutput();
            var names = result.GetValue(files) is { Length: > 0 } named ? named : ["-"];
            await pipe.RunAsync(names, Console.OpenStandardInput, output, cancellation);
            return 0;
        });
        return command;
    }
}

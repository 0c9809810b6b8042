#!/usr/bin/env bash
# Microsoft.Extensions.AI.OpenAI 10.11.0 asks for OpenAI 2.14.0 or newer (NuGet), and restores with 2.15.0 without a word. A streamed answer
# through the Responses API then fails before anything is sent: the adapter calls a method that 2.15.0 no longer has with that signature.
# Whole answers work, and with 2.14.0 the same program streams.
#
# Seen: with 2.14.0 the stream is read; with 2.15.0 MissingMethodException for ResponsesClient.CreateResponseStreamingAsync.
# Needs: the .NET 10 SDK. The server is a listener on this machine that answers with one event stream. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
cat >probe.cs <<'P'
using System.ClientModel;
using System.Net;
using System.Text;
using Microsoft.Extensions.AI;
using OpenAI;

using var listener = new HttpListener();
var port = Random.Shared.Next(20_000, 60_000);
listener.Prefixes.Add($"http://localhost:{port}/");
listener.Start();
_ = Task.Run(async () =>
{
    var context = await listener.GetContextAsync();
    context.Response.ContentType = "text/event-stream";
    var body = Encoding.UTF8.GetBytes("event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"m\",\"output_index\":0,\"content_index\":0,\"delta\":\"hello\",\"sequence_number\":0}\n\n");
    await context.Response.OutputStream.WriteAsync(body);
    context.Response.Close();
});
#pragma warning disable OPENAI001
var client = new OpenAIClient(new ApiKeyCredential("none"), new OpenAIClientOptions { Endpoint = new Uri($"http://localhost:{port}/v1") }).GetResponsesClient();
try
{
    var text = "";
    await foreach (var update in client.AsIChatClient("any").GetStreamingResponseAsync("hi")) text += update.Text;
    Console.WriteLine($"streamed {text}");
}
catch (MissingMethodException e)
{
    Console.WriteLine($"missing {e.Message}");
}
P
run() {
  cat >probe.csproj <<P
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup><OutputType>Exe</OutputType><TargetFramework>net10.0</TargetFramework><Nullable>enable</Nullable><ImplicitUsings>enable</ImplicitUsings></PropertyGroup>
  <ItemGroup>
    <PackageReference Include="Microsoft.Extensions.AI.OpenAI" Version="10.11.0" />
    <PackageReference Include="OpenAI" Version="$1" />
  </ItemGroup>
</Project>
P
  rm -rf bin obj out
  dotnet build -v quiet --nologo -o out >build.log 2>&1 || { cat build.log; exit 1; }
  dotnet out/probe.dll
}
older=$(run 2.14.0) newer=$(run 2.15.0)
echo "OpenAI 2.14.0: $older"
echo "OpenAI 2.15.0: $newer"
[[ $older == "streamed hello" && $newer == missing*CreateResponseStreamingAsync* ]] || { echo "it is no longer so" >&2; exit 1; }

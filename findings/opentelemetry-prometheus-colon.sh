#!/usr/bin/env bash
# OpenTelemetry.Exporter.Prometheus.AspNetCore 1.20.1-beta.1 (NuGet): an instrument whose name has a colon, such as vllm:num_requests_running, is missing
# from the scrape, without a word in log or output. Colons are valid in Prometheus' metric names, and vLLM's names, which autoscalers and
# dashboards of inference servers ask for, all have one. The instrument beside it, without a colon, is there.
#
# Seen: the scrape has plain_requests_running, and no line with vllm. Needs: the .NET 10 SDK, curl. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'kill $server 2>/dev/null || true; rm -rf "$folder"' EXIT; server=
cd "$folder"
cat >probe.csproj <<'P'
<Project Sdk="Microsoft.NET.Sdk.Web">
  <PropertyGroup><TargetFramework>net10.0</TargetFramework><ImplicitUsings>enable</ImplicitUsings></PropertyGroup>
  <ItemGroup>
    <PackageReference Include="OpenTelemetry.Exporter.Prometheus.AspNetCore" Version="1.20.1-beta.1" />
    <PackageReference Include="OpenTelemetry.Extensions.Hosting" Version="1.20.1" />
  </ItemGroup>
</Project>
P
cat >probe.cs <<'P'
using System.Diagnostics.Metrics;
using OpenTelemetry.Metrics;
using var meter = new Meter("probe");
meter.CreateObservableGauge("vllm:num_requests_running", () => 3);
meter.CreateObservableGauge("plain_requests_running", () => 3);
var builder = WebApplication.CreateBuilder(args);
builder.WebHost.UseUrls("http://127.0.0.1:0");
builder.Services.AddOpenTelemetry().WithMetrics(metrics => metrics.AddMeter("probe").AddPrometheusExporter());
var app = builder.Build();
app.MapPrometheusScrapingEndpoint();
await app.RunAsync();
P
dotnet build -v quiet --nologo -o out >build.log 2>&1 || { cat build.log; exit 1; }
dotnet out/probe.dll >server.log 2>&1 & server=$!
for _ in $(seq 100); do address=$(grep -oE 'http://127\.0\.0\.1:[0-9]+' server.log | head -n 1) && [[ -n $address ]] && break; sleep 0.2; done
scrape=$(curl -s "$address/metrics")
grep '^plain_requests_running' <<<"$scrape" || { echo "changed: the plain one is missing"; exit 1; }
if grep -i vllm <<<"$scrape"; then echo 'changed: the name with a colon is exported'; exit 1; fi
echo 'vllm:num_requests_running is missing; log lines that name it:' "$(grep -c vllm server.log || true)"

#!/usr/bin/env pwsh
# The way in on Windows and macOS (on Linux: ./rho): builds with the .NET 10 SDK, and hands over to the CLI (clients/Rho.Cli).
# Without PowerShell: dotnet run -c Release --project clients/Rho.Cli -- COMMAND ...
#
#   ./rho.ps1 setup          build
#   ./rho.ps1 COMMAND ...    the CLI: ./rho.ps1 --help
$ErrorActionPreference = 'Stop'
$build = Join-Path $PSScriptRoot '.build'
$cli = Join-Path $build 'dotnet/bin/Rho.Cli/release/rho'
if ($env:OS -eq 'Windows_NT') { $cli += '.exe' }
$stamp = Join-Path $build 'cli.stamp'

function Stop-With($message) { [Console]::Error.WriteLine("rho: $message"); exit 1 }

# True where a source of the CLI is newer than what was built of it.
function Test-Old {
    if (-not (Test-Path $cli) -or -not (Test-Path $stamp)) { return $true }
    $built = (Get-Item $stamp).LastWriteTimeUtc
    $sources = 'core', 'services', 'trainer', 'clients', 'protos', 'Directory.Build.props', 'Directory.Build.targets', 'Directory.Packages.props', 'global.json' |
        ForEach-Object { Join-Path $PSScriptRoot $_ }
    $newer = Get-ChildItem $sources -Recurse -File |
        Where-Object { $_.LastWriteTimeUtc -gt $built -and $_.Extension -ne '.md' -and $_.FullName -notmatch '[\\/](bin|obj|node_modules|__pycache__)[\\/]' } |
        Select-Object -First 1
    return $null -ne $newer
}

$dotnet = Get-Command dotnet -CommandType Application -ErrorAction SilentlyContinue | Select-Object -First 1
if (-not $dotnet -or -not (& $dotnet.Source --list-sdks | Where-Object { $_ -match '^[1-9][0-9]\.' })) {
    Stop-With 'the .NET 10 SDK is missing; it is at https://dotnet.microsoft.com/download (Windows: winget install Microsoft.DotNet.SDK.10)'
}

if (Test-Old) {
    [Console]::Error.WriteLine('rho: building (once, about a minute)')
    New-Item $build -ItemType Directory -Force | Out-Null
    $log = Join-Path $build 'build-Rho.Cli.log'
    $begun = [DateTime]::UtcNow   # an edit made meanwhile is newer
    $env:DOTNET_CLI_TELEMETRY_OPTOUT = 1; $env:DOTNET_NOLOGO = 1; $env:MSBUILDDISABLENODEREUSE = 1
    & $dotnet.Source build (Join-Path $PSScriptRoot 'clients/Rho.Cli/Rho.Cli.csproj') -c Release --artifacts-path (Join-Path $build 'dotnet') -v quiet --nologo > $log
    if ($LASTEXITCODE -ne 0) { Get-Content $log -Tail 40; Stop-With "that failed; the whole output is in $log" }
    New-Item $stamp -ItemType File -Force | Out-Null
    (Get-Item $stamp).LastWriteTimeUtc = $begun
}

switch ($args[0]) {
    'setup' { [Console]::Error.WriteLine('rho: set up; try: ./rho.ps1 quickstart'); exit 0 }
    { $_ -in 'test', 'bench' } { Stop-With "$_ needs Linux: ./rho $_" }
}
& $cli @args
exit $LASTEXITCODE

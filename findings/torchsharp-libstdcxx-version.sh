#!/usr/bin/env bash
# TorchSharp 0.107.0 (NuGet), its native library for Linux: libLibTorchSharp.so needs version GLIBCXX_3.4.32 of libstdc++ (GCC 13) for one symbol,
# std::ios_base_library_init, that no relocation of it uses. So nothing of GCC 13 is needed, and still the dynamic linker refuses the library on
# Debian 12, Ubuntu 22.04 and other systems with GCC 12's libstdc++. What TorchSharp then says names another cause: "This application or script uses
# TorchSharp but doesn't contain a reference to libtorch-cpu-linux-x64", with that package referenced and restored.
#
# Seen: the version is needed, not weak; relocations that name the symbol: 0; on a libstdc++ without the version the message above, with it 2.
# Needs: the .NET 10 SDK, readelf (binutils). Fails if any of that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
cat >probe.csproj <<'P'
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup><OutputType>Exe</OutputType><TargetFramework>net10.0</TargetFramework></PropertyGroup>
  <ItemGroup>
    <PackageReference Include="TorchSharp" Version="0.107.0" />
    <PackageReference Include="libtorch-cpu-linux-x64" Version="2.10.0" />
  </ItemGroup>
</Project>
P
cat >probe.cs <<'P'
try { System.Console.WriteLine(TorchSharp.torch.ones(2).sum().item<float>()); }
catch (System.Exception e) { System.Console.WriteLine(e.GetBaseException().Message); }
P
dotnet build -v quiet --nologo -o out >build.log 2>&1 || { cat build.log; exit 1; }
library=out/runtimes/linux-x64/native/libLibTorchSharp.so

readelf -V "$library" 2>/dev/null | grep -E 'Name: GLIBCXX_3\.4\.32 +Flags: none' || { echo 'changed: the version is no longer needed'; exit 1; }
uses=$(readelf -rW "$library" | grep -c ios_base_library_init || true)
echo "relocations that use std::ios_base_library_init: $uses"
[[ $uses == 0 ]] || { echo 'changed: the symbol is used'; exit 1; }

libstdcxx=$(ldconfig -p | sed -n 's/.*libstdc++\.so\.6 .*=> //p' | head -n 1)
said=$(dotnet out/probe.dll)
if grep -q GLIBCXX_3.4.32 "$libstdcxx"; then
  echo "this libstdc++ has the version, and the sum is: $said"
  [[ $said == 2 ]]
else
  echo "this libstdc++ lacks the version: $(grep -m1 -o "This application.*Version=[0-9.]*" <<<"$said")"
  grep -q "doesn't contain a reference to libtorch-cpu-linux-x64" <<<"$said" || { echo "changed: $said"; exit 1; }
fi

#!/usr/bin/env bash
# libtorch-cpu-osx-arm64 2.10.0 (NuGet): libtorch_cpu.dylib asks for OpenMP by an absolute path of one package manager,
# /opt/homebrew/opt/libomp/lib/libomp.dylib, though the package carries a libomp.dylib beside it. A self-contained program that publishes the
# package's files has all of them and still does not find OpenMP on a Mac without Homebrew's libomp. The packaged libomp.dylib bears that path as its own
# name, so dyld takes it where the program has loaded it before libtorch_cpu.
#
# Seen: the load command of libtorch_cpu.dylib, and the same path as the packaged libomp.dylib's name (read from the Mach-O headers; nothing is run).
# Needs: the .NET 10 SDK, python3. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
cat >probe.csproj <<'P'
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup><TargetFramework>net10.0</TargetFramework></PropertyGroup>
  <ItemGroup><PackageReference Include="libtorch-cpu-osx-arm64" Version="2.10.0" GeneratePathProperty="true" /></ItemGroup>
</Project>
P
dotnet restore -v quiet >restore.log 2>&1 || { cat restore.log; exit 1; }
native=$(dotnet msbuild -getProperty:Pkglibtorch-cpu-osx-arm64 -nologo)
[[ -n $native ]] || native=$(dotnet nuget locals global-packages -l | sed 's/.*: //')/libtorch-cpu-osx-arm64/2.10.0
python3 - "$native/runtimes/osx-arm64/native" <<'P' | tee seen
import struct, sys
def commands(path):
    with open(path, "rb") as file:
        magic, _, _, _, count, _, _, _ = struct.unpack("<8I", file.read(32))
        assert magic == 0xFEEDFACF, "a 64-bit Mach-O file"
        for _ in range(count):
            start = file.tell()
            kind, size = struct.unpack("<2I", file.read(8))
            body = file.read(size - 8)
            if kind in (0xC, 0xD, 0x18 | 0x80000000):          # loads a library, names itself, loads a library if it is there
                offset = struct.unpack("<I", body[:4])[0] - 8
                yield {0xC: "loads", 0xD: "is"}.get(kind, "may load"), body[offset:].split(b"\0")[0].decode()
            file.seek(start + size)
for name in ("libtorch_cpu.dylib", "libomp.dylib"):
    for what, path in commands(f"{sys.argv[1]}/{name}"):
        if "omp" in path: print(name, what, path)
P
diff seen - <<'S' || { echo changed; exit 1; }
libtorch_cpu.dylib loads /opt/homebrew/opt/libomp/lib/libomp.dylib
libomp.dylib is /opt/homebrew/opt/libomp/lib/libomp.dylib
S

#!/usr/bin/env bash
# TorchSharp 0.107.0 over libtorch 2.10.0 (NuGet): a buffer registered with persistent: false, as rotary tables and causal masks are, stays float32 when
# its module goes to bfloat16 by Module.to, and named_buffers() leaves it out. PyTorch, whose interface this follows, converts such buffers and lists
# them: persistent only says whether the state dict has them. The model then fails at its first product of the two types, or, where types
# are promoted, computes in float32 without a word.
#
# Seen: after to(bfloat16) the persistent buffer is BFloat16, the other Float32; named_buffers has 1 name of 2. Debian's PyTorch 1.13: both bfloat16, 2 of 2.
# Needs: the .NET 10 SDK, readelf (binutils); python3-torch for the comparison, which is left out without it. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
cat >probe.csproj <<'P'
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup><OutputType>Exe</OutputType><TargetFramework>net10.0</TargetFramework><Nullable>enable</Nullable><ImplicitUsings>enable</ImplicitUsings></PropertyGroup>
  <ItemGroup>
    <PackageReference Include="TorchSharp" Version="0.107.0" />
    <PackageReference Include="libtorch-cpu-linux-x64" Version="2.10.0" />
  </ItemGroup>
</Project>
P
cat >probe.cs <<'P'
using TorchSharp;
using static TorchSharp.torch;
var module = new Tables();
module.to(bfloat16);
Console.WriteLine($"kept {module.get_buffer("kept")!.dtype}, other {module.get_buffer("other")!.dtype}, named {module.named_buffers().Count()}");

sealed class Tables : nn.Module<Tensor, Tensor>
{
    public Tables() : base("tables")
    {
        register_buffer("kept", ones(3));
        register_buffer("other", ones(3), persistent: false);
    }

    public override Tensor forward(Tensor input) => input;
}
P
dotnet build -v quiet --nologo -o out >build.log 2>&1 || { cat build.log; exit 1; }
# So that TorchSharp's library also loads where libstdc++ lacks a version that it names and does not use (see torchsharp-libstdcxx-version.sh).
library=out/runtimes/linux-x64/native/libLibTorchSharp.so
cp --remove-destination "$library" copy.so && chmod u+w copy.so
section=$(readelf -V copy.so 2>/dev/null | grep -A1 version_r | sed -nE 's/.*Offset: 0x([0-9a-f]+).*/\1/p' | head -n 1)
entry=$(readelf -V copy.so 2>/dev/null | sed -nE 's/ +0x([0-9a-f]+): +Name: GLIBCXX_3\.4\.32 .*/\1/p')
printf '\x02' | dd of=copy.so bs=1 seek=$((0x$section + 0x$entry + 4)) conv=notrunc status=none
mv -f copy.so "$library"

said=$(dotnet out/probe.dll)
echo "TorchSharp: $said"
[[ $said == "kept BFloat16, other Float32, named 1" ]] || { echo changed; exit 1; }
if /usr/bin/python3 -c 'import torch' 2>/dev/null; then
  /usr/bin/python3 - <<'P'
import torch
module = torch.nn.Module()
module.register_buffer("kept", torch.ones(3))
module.register_buffer("other", torch.ones(3), persistent=False)
module.to(torch.bfloat16)
said = f"kept {module.kept.dtype}, other {module.other.dtype}, named {len(list(module.named_buffers()))}"
print(f"PyTorch {torch.__version__}: {said}")
assert said == "kept torch.bfloat16, other torch.bfloat16, named 2"
P
fi

#!/usr/bin/env bash
# Parquet.Net 6.1.0 (NuGet): a list of strings with a null in it, [a, null, c], written by its own serializer and read back by it is [a, c]. Nothing is
# said, and later elements move to other places. The file is whole: ParquetSharp 25.0.1.2 (Apache Arrow's reader) finds three elements in it.
#
# Seen: ParquetSharp reads 3 elements of the file, Parquet.Net 2. Needs: the .NET 10 SDK. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
cat >probe.csproj <<'P'
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup><OutputType>Exe</OutputType><TargetFramework>net10.0</TargetFramework><Nullable>enable</Nullable><ImplicitUsings>enable</ImplicitUsings></PropertyGroup>
  <ItemGroup>
    <PackageReference Include="Parquet.Net" Version="6.1.0" />
    <PackageReference Include="ParquetSharp" Version="25.0.1.2" />
  </ItemGroup>
</Project>
P
cat >probe.cs <<'P'
using ParquetSharp;
await using (var file = File.Create("texts.parquet")) await Parquet.Serialization.ParquetSerializer.SerializeAsync<Row>([new Row { Texts = ["a", null, "c"] }], file);

using (var reader = new ParquetFileReader("texts.parquet"))
{
    using var group = reader.RowGroup(0);
    using var column = group.Column(0).LogicalReader<string?[]>();
    Show("ParquetSharp", column.ReadAll(1)[0]);
}

using var stream = File.OpenRead("texts.parquet");
var rows = await Parquet.Serialization.ParquetSerializer.DeserializeAsync<Row>(stream);
Show("Parquet.Net", [.. rows.Data[0].Texts!]);

static void Show(string reader, string?[] texts) => Console.WriteLine($"{reader}: {texts.Length}: {string.Join(", ", texts.Select(text => text ?? "null"))}");

sealed class Row { public List<string?>? Texts { get; set; } }
P
dotnet build -v quiet --nologo -o out >build.log 2>&1 || { cat build.log; exit 1; }
dotnet out/probe.dll | tee seen
diff seen - <<'S' || { echo changed; exit 1; }
ParquetSharp: 3: a, null, c
Parquet.Net: 2: a, c
S

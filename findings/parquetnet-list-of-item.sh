#!/usr/bin/env bash
# Parquet.Net 6.1.0 (NuGet) reading lists that ParquetSharp 25.0.1.2 wrote: its column writer names a list's elements "item", as many files do (the
# format's specification recommends "element" and asks readers to take other names too). Read into a class, the list property stays null for every row:
# no exception, no message, the column looks empty. The same class reads lists whose elements are named "element".
#
# Seen: ParquetSharp reads 3 elements, Parquet.Net null, and 3 of the file with the other name. Needs: the .NET 10 SDK. Fails if that changes.
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
using Parquet.Serialization;
using ParquetSharp;
using ParquetSharp.Schema;

foreach (var name in new[] { "item", "element" })
{
    Write(name);
    using (var reader = new ParquetFileReader($"{name}.parquet"))
    {
        using var group = reader.RowGroup(0);
        using var column = group.Column(0).LogicalReader<string[]>();
        Console.WriteLine($"{name}: ParquetSharp reads {column.ReadAll(1)[0].Length}");
    }

    using var stream = File.OpenRead($"{name}.parquet");
    var texts = (await ParquetSerializer.DeserializeAsync<Row>(stream)).Data[0].Texts;
    Console.WriteLine($"{name}: Parquet.Net reads {(texts is null ? "null" : texts.Count)}");
}

static void Write(string element)
{
    using var utf8 = LogicalType.String();
    using var list = LogicalType.List();
    using var text = new PrimitiveNode(element, Repetition.Optional, utf8, PhysicalType.ByteArray);
    using var middle = new GroupNode("list", Repetition.Repeated, [text]);
    using var texts = new GroupNode("Texts", Repetition.Optional, [middle], list);
    using var schema = new GroupNode("schema", Repetition.Required, [texts]);
    using var properties = new WriterPropertiesBuilder().Build();
    using var writer = new ParquetFileWriter($"{element}.parquet", schema, properties);
    using var group = writer.AppendRowGroup();
    using var column = group.NextColumn().LogicalWriter<string[]>();
    column.WriteBatch([["a", "b", "c"]]);
    writer.Close();
}

sealed class Row { public List<string>? Texts { get; set; } }
P
dotnet build -v quiet --nologo -o out >build.log 2>&1 || { cat build.log; exit 1; }
dotnet out/probe.dll | tee seen
diff seen - <<'S' || { echo changed; exit 1; }
item: ParquetSharp reads 3
item: Parquet.Net reads null
element: ParquetSharp reads 3
element: Parquet.Net reads 3
S

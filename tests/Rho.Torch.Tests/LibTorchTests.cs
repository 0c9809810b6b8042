using TorchSharp;

namespace Rho.Torch.Tests;

public class LibTorchTests
{
    [Fact]
    public void LoadedLibrary_IsTheOneBesideTheProgram_AndNoOther()
    {
        Assert.StartsWith(AppContext.BaseDirectory, LibTorch.Folder, StringComparison.Ordinal);
        Assert.Equal(new Version(2, 10, 0), LibTorch.Version);

        using var product = torch.mm(torch.ones(2, 3), torch.ones(3, 2));
        Assert.Equal(3, product[1, 1].item<float>());
        if (!OperatingSystem.IsLinux()) return;
        var mapped = File.ReadLines("/proc/self/maps").Select(line => line[(line.LastIndexOf(' ') + 1)..]).Where(path => Path.GetFileName(path).StartsWith("libtorch", StringComparison.Ordinal)).Distinct();
        Assert.All(mapped, path => Assert.Equal(LibTorch.Folder, Path.GetDirectoryName(path)));
    }

    [Theory]
    [InlineData("cpu", true)]
    [InlineData("auto", true)]
    [InlineData("cuda", true)]
    [InlineData("cuda:3", true)]
    [InlineData("cuda:", false)]
    [InlineData("cuda:-1", false)]
    [InlineData("cuda:1 ", false)]
    [InlineData("gpu", false)]
    [InlineData("", false)]
    public void IsName_TellsDevicesFromTypingErrors(string name, bool known) => Assert.Equal(known, Devices.IsName(name));

    [Fact]
    public void Resolve_NoSuchDevice_SaysWhatThereIs()
    {
        Assert.Equal(DeviceType.CPU, Devices.Resolve("cpu").type);
        Assert.Equal("device 'gpu' is not known; expected auto, cpu, cuda or cuda:N", Assert.Throws<RhoException>(() => Devices.Resolve("gpu")).Message);
        Assert.SkipWhen(torch.cuda.is_available(), "there is a GPU");
        Assert.StartsWith("device cuda:1: libtorch finds no GPU; use cpu", Assert.Throws<RhoException>(() => Devices.Resolve("cuda:1")).Message, StringComparison.Ordinal);
    }
}

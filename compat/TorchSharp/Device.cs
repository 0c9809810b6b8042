namespace TorchSharp;

public static partial class torch
{
    public class Device
    {
        /// <param name="description">Such as "cpu", "cuda" or "cuda:1".</param>
        public Device(string description)
        {
            var parts = description.Split(':');
            if (parts.Length > 2) throw new ArgumentException($"'{description}' is no device; expected a type, or type:index.", nameof(description));
            type = ParseType(parts[0]);
            if (parts.Length == 2) index = int.Parse(parts[1], System.Globalization.CultureInfo.InvariantCulture);
        }

        public Device(string deviceType, int index = -1)
        {
            type = ParseType(deviceType);
            this.index = index;
        }

        public Device(DeviceType deviceType, int index = -1)
        {
            type = deviceType;
            this.index = index;
        }

        public Device(int index)
        {
            type = DeviceType.CUDA;
            this.index = index;
        }

        public DeviceType type { get; }

        /// <summary>-1 for the current device of the type.</summary>
        public int index { get; } = -1;

        public static implicit operator Device(string description) => new(description);

        public override string ToString() => type switch
        {
            DeviceType.CPU => "cpu",
            _ when index == -1 => type.ToString().ToLowerInvariant(),
            _ => $"{type.ToString().ToLowerInvariant()}:{index}",
        };

        private static DeviceType ParseType(string name) => Enum.Parse<DeviceType>(name, ignoreCase: true);
    }

    public static readonly Device CPU = new(DeviceType.CPU);
    public static readonly Device META = new(DeviceType.META);

    /// <exception cref="InvalidOperationException">There is no CUDA device.</exception>
    public static Device CUDA => device(DeviceType.CUDA);

    public static Device device(string description) => Initialize(new Device(description));
    public static Device device(string deviceType, int index = -1) => Initialize(new Device(deviceType, index));
    public static Device device(DeviceType deviceType, int index = -1) => Initialize(new Device(deviceType, index));
    public static Device device(int index) => new(DeviceType.CUDA, index);

    private static Device Initialize(Device device)
    {
        InitializeDeviceType(device.type);
        return device;
    }

    /// <exception cref="InvalidOperationException">The build of libtorch or the machine has no such device.</exception>
    public static void InitializeDeviceType(DeviceType deviceType)
    {
        if (!TryInitializeDeviceType(deviceType)) throw new InvalidOperationException($"Torch device type {deviceType} did not initialise on the current machine.");
    }

    public static bool TryInitializeDeviceType(DeviceType deviceType) => deviceType switch
    {
        DeviceType.CPU or DeviceType.META => true,
        DeviceType.CUDA => cuda.is_available(),
        _ => false,
    };

    public static Device InitializeDevice(Device? device)
    {
        if (device is null) return get_default_device();
        InitializeDeviceType(device.type);
        return device;
    }

    private static Device _defaultDevice = CPU;

    public static Device get_default_device() => _defaultDevice;
    public static void set_default_device(Device device) => _defaultDevice = InitializeDevice(device);
    public static void set_default_device(string device) => set_default_device(new Device(device));
}

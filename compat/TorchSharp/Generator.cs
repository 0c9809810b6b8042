using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>A stream of random numbers.</summary>
    public class Generator : IDisposable
    {
        private nint _handle;

        public Generator(ulong seed = 0, Device? device = null)
        {
            this.device = device ?? CPU;
            _handle = rho_generator_new(seed, (int)this.device.type, this.device.index);
            if (_handle == 0) Interop.ThrowLastError();
        }

        internal Generator(nint handle)
        {
            _handle = handle;
            device = CPU;
        }

        ~Generator() => Dispose(false);

        /// <summary>The CPU's, which functions use that are given none.</summary>
        public static Generator Default => new(rho_generator_default());

        public Device device { get; }

        public IntPtr Handle
        {
            get
            {
                ObjectDisposedException.ThrowIf(_handle == 0, this);
                return _handle;
            }
        }

        /// <summary>The state as bytes; <see cref="set_state"/> continues from it exactly.</summary>
        public Tensor get_state() => Interop.Own(rho_generator_get_state(Handle), this);

        public void set_state(Tensor value) => Interop.Check(rho_generator_set_state(Handle, value.Handle), this, value);

        public Generator manual_seed(long seed)
        {
            Interop.Check(rho_generator_manual_seed(Handle, (ulong)seed), this);
            return this;
        }

        /// <summary>Seeds with the clock.</summary>
        /// <returns>The seed.</returns>
        public long seed()
        {
            var seed = DateTime.UtcNow.Ticks;
            manual_seed(seed);
            return seed;
        }

        public long initial_seed()
        {
            var seed = (long)rho_generator_initial_seed(Handle);
            GC.KeepAlive(this);
            return seed;
        }

        public void Dispose()
        {
            Dispose(true);
            GC.SuppressFinalize(this);
        }

        protected virtual void Dispose(bool disposing)
        {
            var handle = Interlocked.Exchange(ref _handle, 0);
            if (handle != 0) rho_generator_free(handle);
        }
    }

    public static partial class random
    {
        public static Generator manual_seed(long seed)
        {
            Interop.Check(rho_manual_seed((ulong)seed));
            return Generator.Default;
        }

        public static long seed()
        {
            var seed = DateTime.UtcNow.Ticks;
            Interop.Check(rho_manual_seed((ulong)seed));
            return seed;
        }

        public static long initial_seed()
        {
            using var generator = Generator.Default;
            return generator.initial_seed();
        }

        public static Tensor get_rng_state()
        {
            using var generator = Generator.Default;
            return generator.get_state();
        }

        public static void set_rng_state(Tensor new_state)
        {
            using var generator = Generator.Default;
            generator.set_state(new_state);
        }
    }

    public static Generator manual_seed(long seed) => random.manual_seed(seed);
    public static long seed() => random.seed();
    public static long initial_seed() => random.initial_seed();
    public static Tensor get_rng_state() => random.get_rng_state();
    public static void set_rng_state(Tensor new_state) => random.set_rng_state(new_state);
}

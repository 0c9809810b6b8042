// Errors, threads, devices, random generators, gradient mode.
#include "managed_error.h"
#include "rho_torch.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/anomaly_mode.h>
#include <torch/version.h>

#include <memory>
#include <mutex>
#include <string>

namespace {
thread_local std::string error_message;
thread_local std::shared_ptr<void> error_exception;

void keep(std::string message) {
  // libtorch appends where the exception was raised, and sometimes a stack of C++ frames.
  auto end = message.find("\nException raised from ");
  if (end != std::string::npos) message.resize(end);
  while (!message.empty() && message.back() == '\n') message.pop_back();
  error_message = std::move(message);
  error_exception.reset();
}

// Newer libtorch has the second names.
template <class Hooks>
auto cuda_devices(const Hooks& hooks, int) -> decltype(static_cast<int>(hooks.getNumGPUs())) {
  return static_cast<int>(hooks.getNumGPUs());
}
template <class Hooks>
auto cuda_devices(const Hooks& hooks, long) -> decltype(static_cast<int>(hooks.deviceCount())) {
  return static_cast<int>(hooks.deviceCount());
}
template <class Hooks>
auto current_cuda_device(const Hooks& hooks, int) -> decltype(static_cast<int>(hooks.current_device())) {
  return static_cast<int>(hooks.current_device());
}
template <class Hooks>
auto current_cuda_device(const Hooks& hooks, long) -> decltype(static_cast<int>(hooks.getCurrentDevice())) {
  return static_cast<int>(hooks.getCurrentDevice());
}
}  // namespace

void record_error() noexcept {
  try {
    throw;
  } catch (const ManagedError& error) {
    keep(error.what());
    error_exception = error.exception;
  } catch (const c10::Error& error) {
    keep(error.what_without_backtrace());
  } catch (const std::exception& error) {
    keep(error.what());
  } catch (...) {
    keep("an unknown error in libtorch");
  }
}

RHO_API const char* rho_error_message() { return error_message.c_str(); }

// The GCHandle of the .NET exception behind the last error, or null.
RHO_API void* rho_error_exception() { return error_exception.get(); }

// Called when the error has been read: a thread must not end with a .NET exception in its keeping.
RHO_API void rho_clear_error() {
  error_message.clear();
  error_exception.reset();
}

RHO_API const char* rho_torch_version() { return TORCH_VERSION; }

RHO_API int rho_get_num_threads() { return at::get_num_threads(); }
RHO_API int rho_set_num_threads(int count) {
  return run([&] { at::set_num_threads(count); });
}
RHO_API int rho_get_num_interop_threads() { return static_cast<int>(at::get_num_interop_threads()); }
RHO_API int rho_set_num_interop_threads(int count) {
  return run([&] { at::set_num_interop_threads(count); });
}

RHO_API int rho_cuda_is_available() { return at::globalContext().hasCUDA() ? 1 : 0; }
RHO_API int rho_cudnn_is_available() { return at::globalContext().hasCUDA() && at::detail::getCUDAHooks().hasCuDNN() ? 1 : 0; }
RHO_API int rho_cuda_device_count() {
  int count = 0;
  run([&] { count = at::globalContext().hasCUDA() ? cuda_devices(at::detail::getCUDAHooks(), 0) : 0; });
  return count;
}
RHO_API int rho_cuda_synchronize(int index) {
  return run([&] {
    TORCH_CHECK(at::globalContext().hasCUDA(), "CUDA is not available");
    auto& hooks = at::detail::getCUDAHooks();
    hooks.deviceSynchronize(index < 0 ? current_cuda_device(hooks, 0) : index);
  });
}

RHO_API void rho_set_default_dtype(int type) {
  at::set_default_dtype(c10::scalarTypeToTypeMeta(static_cast<at::ScalarType>(type)));
}
RHO_API int rho_default_dtype() { return static_cast<int>(c10::typeMetaToScalarType(at::get_default_dtype())); }

RHO_API int rho_get_allow_tf32_cublas() { return at::globalContext().allowTF32CuBLAS() ? 1 : 0; }
RHO_API int rho_set_allow_tf32_cublas(int allow) {
  return run([&] { at::globalContext().setAllowTF32CuBLAS(allow != 0); });
}
RHO_API int rho_get_allow_tf32_cudnn() { return at::globalContext().allowTF32CuDNN() ? 1 : 0; }
RHO_API int rho_set_allow_tf32_cudnn(int allow) {
  return run([&] { at::globalContext().setAllowTF32CuDNN(allow != 0); });
}

RHO_API int rho_grad_enabled() { return at::GradMode::is_enabled() ? 1 : 0; }
RHO_API void rho_set_grad_enabled(int enabled) { at::GradMode::set_enabled(enabled != 0); }
RHO_API int rho_inference_mode_enabled() { return c10::InferenceMode::is_enabled() ? 1 : 0; }
RHO_API void* rho_inference_mode_enter(int enabled) { return new c10::InferenceMode(enabled != 0); }
RHO_API void rho_inference_mode_leave(void* guard) { delete static_cast<c10::InferenceMode*>(guard); }
RHO_API int rho_anomaly_enabled() { return torch::autograd::AnomalyMode::is_enabled() ? 1 : 0; }
RHO_API int rho_anomaly_check_nan() { return torch::autograd::AnomalyMode::should_check_nan() ? 1 : 0; }
RHO_API void rho_set_anomaly(int enabled, int check_nan) {
  torch::autograd::AnomalyMode::set_enabled(enabled != 0, check_nan != 0);
}

RHO_API at::Generator* rho_generator_new(uint64_t seed, int device_type, int device_index) {
  try {
    auto device = device_of(device_type, device_index);
    if (device.is_cpu()) return new at::Generator(at::detail::createCPUGenerator(seed));
    // A copy of the device's generator: naming the CUDA one would need CUDA's headers.
    auto generator = at::globalContext().defaultGenerator(device).clone();
    generator.set_current_seed(seed);
    return new at::Generator(std::move(generator));
  } catch (...) {
    record_error();
    return nullptr;
  }
}
RHO_API at::Generator* rho_generator_default() {
  return new at::Generator(at::globalContext().defaultGenerator(at::kCPU));
}
RHO_API void rho_generator_free(at::Generator* generator) { delete generator; }
RHO_API int rho_generator_manual_seed(at::Generator* generator, uint64_t seed) {
  return run([&] {
    std::lock_guard<std::mutex> lock(generator->mutex());
    generator->set_current_seed(seed);
  });
}
RHO_API uint64_t rho_generator_initial_seed(at::Generator* generator) { return generator->current_seed(); }
RHO_API Handle rho_generator_get_state(at::Generator* generator) {
  return make([&] {
    std::lock_guard<std::mutex> lock(generator->mutex());
    return generator->get_state();
  });
}
RHO_API int rho_generator_set_state(at::Generator* generator, Handle state) {
  return run([&] {
    std::lock_guard<std::mutex> lock(generator->mutex());
    generator->set_state(*state);
  });
}
// All generators: the CPU's and every CUDA device's.
RHO_API int rho_manual_seed(uint64_t seed) {
  return run([&] { at::manual_seed(seed); });
}
RHO_API int rho_cuda_manual_seed(uint64_t seed, int all) {
  return run([&] {
    if (!at::globalContext().hasCUDA()) return;
    int first = all ? 0 : current_cuda_device(at::detail::getCUDAHooks(), 0);
    int end = all ? rho_cuda_device_count() : first + 1;
    for (int index = first; index < end; index++) {
      auto generator = at::globalContext().defaultGenerator(device_of(static_cast<int>(at::kCUDA), index));
      std::lock_guard<std::mutex> lock(generator.mutex());
      generator.set_current_seed(seed);
    }
  });
}

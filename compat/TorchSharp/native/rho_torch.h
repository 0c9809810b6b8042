// The C interface between the TorchSharp assembly and libtorch.
//
// A tensor crosses as a pointer to an at::Tensor on the heap that its .NET object owns; null is "no tensor".
// A function that makes a tensor returns null on error, a function that changes one returns -1; the message is then
// kept for the calling thread (rho_error_message). No C++ exception ever leaves this library.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#define RHO_API extern "C" __attribute__((visibility("default")))

using Handle = at::Tensor*;

// Keeps the exception in flight for rho_error_message.
void record_error() noexcept;

template <class F>
Handle make(F&& f) noexcept {
  try {
    return new at::Tensor(f());
  } catch (...) {
    record_error();
    return nullptr;
  }
}

// For functions whose result may be undefined: null without an error.
template <class F>
int try_make(Handle* result, F&& f) noexcept {
  *result = nullptr;
  try {
    at::Tensor tensor = f();
    if (tensor.defined()) *result = new at::Tensor(std::move(tensor));
    return 0;
  } catch (...) {
    record_error();
    return -1;
  }
}

template <class F>
int run(F&& f) noexcept {
  try {
    f();
    return 0;
  } catch (...) {
    record_error();
    return -1;
  }
}

// A number of .NET: kind 0 is int64, 1 double, 2 bool, -1 none.
struct Number {
  int64_t kind;
  int64_t bits;

  at::Scalar scalar() const {
    if (kind == 1) {
      double value;
      std::memcpy(&value, &bits, sizeof value);
      return at::Scalar(value);
    }
    return kind == 2 ? at::Scalar(bits != 0) : at::Scalar(bits);
  }
  c10::optional<at::Scalar> optional() const {
    return kind < 0 ? c10::optional<at::Scalar>() : c10::optional<at::Scalar>(scalar());
  }
};

inline at::Tensor value_or_undefined(Handle tensor) { return tensor ? *tensor : at::Tensor(); }
inline c10::optional<at::Tensor> optional_tensor(Handle tensor) {
  return tensor ? c10::optional<at::Tensor>(*tensor) : c10::optional<at::Tensor>();
}
inline c10::optional<at::ScalarType> optional_type(int type) {
  return type < 0 ? c10::optional<at::ScalarType>() : c10::optional<at::ScalarType>(static_cast<at::ScalarType>(type));
}
inline c10::optional<int64_t> optional_int(int64_t value, int present) {
  return present ? c10::optional<int64_t>(value) : c10::optional<int64_t>();
}
inline c10::optional<at::Generator> optional_generator(at::Generator* generator) {
  return generator ? c10::optional<at::Generator>(*generator) : c10::optional<at::Generator>();
}
inline at::Device device_of(int type, int index) {
  return at::Device(static_cast<at::DeviceType>(type), static_cast<at::DeviceIndex>(index));
}
inline std::vector<at::Tensor> tensor_list(Handle const* tensors, int64_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (int64_t i = 0; i < count; i++) list.push_back(value_or_undefined(tensors[i]));
  return list;
}

// Hands a list over; .NET frees the array, not the tensors, with rho_free_list.
template <class F>
Handle* make_list(int64_t* count, F&& f) noexcept {
  try {
    std::vector<at::Tensor> list = f();
    auto* array = new Handle[list.size() + 1]();
    for (size_t i = 0; i < list.size(); i++)
      if (list[i].defined()) array[i] = new at::Tensor(std::move(list[i]));
    *count = static_cast<int64_t>(list.size());
    return array;
  } catch (...) {
    record_error();
    return nullptr;
  }
}

template <class Tuple>
void store_pair(Handle* results, Tuple&& pair) {
  auto first = new at::Tensor(std::get<0>(pair));
  results[1] = new at::Tensor(std::get<1>(pair));
  results[0] = first;
}

// Making tensors, their properties, their memory, conversions, random filling.
#include "rho_torch.h"

namespace {
at::TensorOptions options_of(int type, int device_type, int device_index) {
  auto options = at::TensorOptions().device(device_of(device_type, device_index));
  return type < 0 ? options : options.dtype(static_cast<at::ScalarType>(type));
}
at::Tensor finish(at::Tensor tensor, int requires_grad) {
  if (requires_grad) tensor.set_requires_grad(true);
  return tensor;
}
}  // namespace

#define SIZES at::IntArrayRef(sizes, rank)
#define OPTIONS options_of(type, device_type, device_index)
#define OPTIONS_PARAMETERS int type, int device_type, int device_index, int requires_grad

RHO_API void rho_free(Handle tensor) { delete tensor; }
RHO_API void rho_free_list(Handle* list) { delete[] list; }
RHO_API Handle rho_share(Handle a) {
  return make([&] { return *a; });
}

// Properties. These cannot fail on the defined, strided tensors that .NET holds, and take nanoseconds.
RHO_API int64_t rho_dim(Handle a) { return a->dim(); }
RHO_API int64_t rho_numel(Handle a) { return a->numel(); }
RHO_API int64_t rho_element_size(Handle a) { return static_cast<int64_t>(a->element_size()); }
RHO_API int rho_dtype(Handle a) { return static_cast<int>(a->scalar_type()); }
RHO_API int rho_device_type(Handle a) { return static_cast<int>(a->device().type()); }
RHO_API int rho_device_index(Handle a) { return a->device().index(); }
RHO_API const int64_t* rho_sizes(Handle a) { return a->sizes().data(); }
RHO_API const int64_t* rho_strides(Handle a) { return a->strides().data(); }
RHO_API int64_t rho_storage_offset(Handle a) { return a->storage_offset(); }
RHO_API int rho_is_contiguous(Handle a) { return a->is_contiguous() ? 1 : 0; }
RHO_API int rho_requires_grad(Handle a) { return a->requires_grad() ? 1 : 0; }
RHO_API int rho_is_leaf(Handle a) { return a->is_leaf() ? 1 : 0; }
RHO_API int rho_is_sparse(Handle a) { return a->is_sparse() ? 1 : 0; }
RHO_API int rho_is_pinned(Handle a) {
  int pinned = -1;
  run([&] { pinned = a->is_pinned() ? 1 : 0; });
  return pinned;
}
RHO_API void* rho_data(Handle a) {
  void* data = nullptr;
  run([&] { data = a->data_ptr(); });
  return data;
}
RHO_API int64_t rho_size_at(Handle a, int64_t dim) {
  int64_t size = -1;
  run([&] { size = a->size(dim); });
  return size;
}
RHO_API int64_t rho_stride_at(Handle a, int64_t dim) {
  int64_t stride = INT64_MIN;
  run([&] { stride = a->stride(dim); });
  return stride;
}

// Copies the only element, as it is stored, to memory of at least element_size bytes.
RHO_API int rho_item(Handle a, void* destination) {
  return run([&] {
    TORCH_CHECK(a->numel() == 1, "a Tensor with ", a->numel(), " elements cannot be converted to Scalar");
    if (a->device().is_cpu()) {
      std::memcpy(destination, a->data_ptr(), a->element_size());
    } else {
      auto copy = a->detach().cpu();
      std::memcpy(destination, copy.data_ptr(), copy.element_size());
    }
  });
}
RHO_API int rho_to_number(Handle a, Number* number) {
  return run([&] {
    auto value = a->item();
    TORCH_CHECK(!value.isComplex(), "complex numbers are not supported");
    if (value.isFloatingPoint()) {
      double bits = value.toDouble();
      number->kind = 1;
      std::memcpy(&number->bits, &bits, sizeof bits);
    } else {
      number->kind = value.isBoolean() ? 2 : 0;
      number->bits = value.isBoolean() ? (value.toBool() ? 1 : 0) : value.toLong();
    }
  });
}

// Autograd properties
RHO_API int rho_set_requires_grad(Handle a, int requires_grad) {
  return run([&] { a->set_requires_grad(requires_grad != 0); });
}
RHO_API int rho_grad(Handle a, Handle* result) {
  return try_make(result, [&] { return a->grad(); });
}
RHO_API int rho_set_grad(Handle a, Handle grad) {
  return run([&] {
    if (grad) {
      TORCH_CHECK(grad->sizes() == a->sizes(), "assigned grad has data of a different size");
      TORCH_CHECK(grad->device() == a->device(), "assigned grad has data located on a different device");
    }
    a->mutable_grad() = value_or_undefined(grad);
  });
}
RHO_API int rho_retain_grad(Handle a) {
  return run([&] { a->retain_grad(); });
}
RHO_API Handle rho_detach(Handle a) {
  return make([&] { return a->detach(); });
}
RHO_API int rho_detach_(Handle a) {
  return run([&] { a->detach_(); });
}

// Factories
RHO_API Handle rho_empty(const int64_t* sizes, int64_t rank, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::empty(SIZES, OPTIONS), requires_grad); });
}
RHO_API Handle rho_zeros(const int64_t* sizes, int64_t rank, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::zeros(SIZES, OPTIONS), requires_grad); });
}
RHO_API Handle rho_ones(const int64_t* sizes, int64_t rank, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::ones(SIZES, OPTIONS), requires_grad); });
}
RHO_API Handle rho_full(const int64_t* sizes, int64_t rank, Number value, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::full(SIZES, value.scalar(), OPTIONS), requires_grad); });
}
RHO_API Handle rho_empty_strided(const int64_t* sizes, const int64_t* strides, int64_t rank, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::empty_strided(SIZES, at::IntArrayRef(strides, rank), OPTIONS), requires_grad); });
}
RHO_API Handle rho_rand(const int64_t* sizes, int64_t rank, at::Generator* generator, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::rand(SIZES, optional_generator(generator), OPTIONS), requires_grad); });
}
RHO_API Handle rho_randn(const int64_t* sizes, int64_t rank, at::Generator* generator, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::randn(SIZES, optional_generator(generator), OPTIONS), requires_grad); });
}
RHO_API Handle rho_randint(int64_t low, int64_t high, const int64_t* sizes, int64_t rank, at::Generator* generator,
                           OPTIONS_PARAMETERS) {
  return make(
      [&] { return finish(at::randint(low, high, SIZES, optional_generator(generator), OPTIONS), requires_grad); });
}
RHO_API Handle rho_randperm(int64_t n, at::Generator* generator, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::randperm(n, optional_generator(generator), OPTIONS), requires_grad); });
}
RHO_API Handle rho_arange(Number start, Number stop, Number step, OPTIONS_PARAMETERS) {
  return make(
      [&] { return finish(at::arange(start.scalar(), stop.scalar(), step.scalar(), OPTIONS), requires_grad); });
}
RHO_API Handle rho_linspace(double start, double end, int64_t steps, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::linspace(start, end, steps, OPTIONS), requires_grad); });
}
RHO_API Handle rho_eye(int64_t rows, int64_t columns, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::eye(rows, columns, OPTIONS), requires_grad); });
}
RHO_API Handle rho_scalar_tensor(Number value, OPTIONS_PARAMETERS) {
  return make([&] { return finish(at::scalar_tensor(value.scalar(), OPTIONS), requires_grad); });
}

enum class Like { empty, zeros, ones, rand, randn };
// type and device_type are negative for the tensor's own.
RHO_API Handle rho_like(Handle a, int kind, OPTIONS_PARAMETERS) {
  return make([&] {
    auto options = a->options().requires_grad(false);
    if (type >= 0) options = options.dtype(static_cast<at::ScalarType>(type));
    if (device_type >= 0) options = options.device(device_of(device_type, device_index));
    switch (static_cast<Like>(kind)) {
      case Like::zeros:
        return finish(at::zeros_like(*a, options), requires_grad);
      case Like::ones:
        return finish(at::ones_like(*a, options), requires_grad);
      case Like::rand:
        return finish(at::rand_like(*a, options), requires_grad);
      case Like::randn:
        return finish(at::randn_like(*a, options), requires_grad);
      default:
        return finish(at::empty_like(*a, options), requires_grad);
    }
  });
}
RHO_API Handle rho_full_like(Handle a, Number value, OPTIONS_PARAMETERS) {
  return make([&] {
    auto options = a->options().requires_grad(false);
    if (type >= 0) options = options.dtype(static_cast<at::ScalarType>(type));
    if (device_type >= 0) options = options.device(device_of(device_type, device_index));
    return finish(at::full_like(*a, value.scalar(), options), requires_grad);
  });
}
RHO_API Handle rho_randint_like(Handle a, int64_t low, int64_t high, OPTIONS_PARAMETERS) {
  return make([&] {
    auto options = a->options().requires_grad(false);
    if (type >= 0) options = options.dtype(static_cast<at::ScalarType>(type));
    if (device_type >= 0) options = options.device(device_of(device_type, device_index));
    return finish(at::randint_like(*a, low, high, options), requires_grad);
  });
}

// A tensor with a copy of data, which holds elements of source_type; target_type may differ.
RHO_API Handle rho_from_data(const void* data, const int64_t* sizes, int64_t rank, int source_type, OPTIONS_PARAMETERS) {
  return make([&] {
    auto tensor = at::empty(SIZES, at::TensorOptions(static_cast<at::ScalarType>(source_type)));
    if (tensor.numel() > 0) std::memcpy(tensor.data_ptr(), data, tensor.nbytes());
    return finish(tensor.to(OPTIONS), requires_grad);
  });
}
// A tensor over memory of .NET, which release(context) gives back when the storage goes.
RHO_API Handle rho_from_memory(void* data, void (*release)(void*), void* context, const int64_t* sizes, int64_t rank,
                               int source_type, OPTIONS_PARAMETERS) {
  bool owned = false;
  auto result = make([&] {
    auto deleter = [release, context](void*) { release(context); };
    auto tensor = at::from_blob(data, SIZES, deleter, at::TensorOptions(static_cast<at::ScalarType>(source_type)));
    owned = true;
    return finish(tensor.to(OPTIONS), requires_grad);
  });
  if (!owned) release(context);
  return result;
}

// Conversions
RHO_API Handle rho_to(Handle a, int type, int device_type, int device_index, int non_blocking, int copy) {
  return make([&] {
    auto dtype = type < 0 ? a->scalar_type() : static_cast<at::ScalarType>(type);
    auto device = device_type < 0 ? a->device() : device_of(device_type, device_index);
    return a->to(device, dtype, non_blocking != 0, copy != 0);
  });
}
RHO_API Handle rho_clone(Handle a) {
  return make([&] { return a->clone(); });
}
RHO_API Handle rho_contiguous(Handle a) {
  return make([&] { return a->contiguous(); });
}
RHO_API Handle rho_alias(Handle a) {
  return make([&] { return at::alias(*a); });
}
RHO_API Handle rho_pin_memory(Handle a) {
  return make([&] { return a->pin_memory(); });
}
RHO_API int rho_copy_(Handle a, Handle source, int non_blocking) {
  return run([&] { a->copy_(*source, non_blocking != 0); });
}
RHO_API int rho_set_(Handle a, Handle source) {
  return run([&] { a->set_(*source); });
}
RHO_API int rho_result_type(Handle a, Handle b) {
  int type = -1;
  run([&] { type = static_cast<int>(at::result_type(*a, *b)); });
  return type;
}
RHO_API int rho_promote_types(int a, int b) {
  return static_cast<int>(c10::promoteTypes(static_cast<at::ScalarType>(a), static_cast<at::ScalarType>(b)));
}
RHO_API int rho_can_cast(int from, int to) {
  return c10::canCast(static_cast<at::ScalarType>(from), static_cast<at::ScalarType>(to)) ? 1 : 0;
}

// Filling
RHO_API int rho_zero_(Handle a) {
  return run([&] { a->zero_(); });
}
RHO_API int rho_fill_(Handle a, Number value) {
  return run([&] { a->fill_(value.scalar()); });
}
RHO_API int rho_uniform_(Handle a, double from, double to, at::Generator* generator) {
  return run([&] { a->uniform_(from, to, optional_generator(generator)); });
}
RHO_API int rho_normal_(Handle a, double mean, double std, at::Generator* generator) {
  return run([&] { a->normal_(mean, std, optional_generator(generator)); });
}
RHO_API int rho_exponential_(Handle a, double lambda, at::Generator* generator) {
  return run([&] { a->exponential_(lambda, optional_generator(generator)); });
}
RHO_API int rho_random_(Handle a, int64_t from, int64_t to, at::Generator* generator) {
  return run([&] { a->random_(from, to, optional_generator(generator)); });
}
RHO_API int rho_bernoulli_(Handle a, double p, at::Generator* generator) {
  return run([&] { a->bernoulli_(p, optional_generator(generator)); });
}
RHO_API int rho_bernoulli_tensor_(Handle a, Handle p, at::Generator* generator) {
  return run([&] { a->bernoulli_(*p, optional_generator(generator)); });
}
RHO_API Handle rho_bernoulli(Handle a, at::Generator* generator) {
  return make([&] { return at::bernoulli(*a, optional_generator(generator)); });
}
RHO_API Handle rho_multinomial(Handle a, int64_t samples, int replacement, at::Generator* generator) {
  return make([&] { return at::multinomial(*a, samples, replacement != 0, optional_generator(generator)); });
}

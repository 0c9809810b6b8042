// Elementwise functions, comparisons, matrix products, reductions, sorting.
#include "rho_torch.h"

#define UNARY(name) \
  RHO_API Handle rho_##name(Handle a) { return make([&] { return at::name(*a); }); }
#define UNARY_(name) \
  RHO_API int rho_##name##_(Handle a) { return run([&] { a->name##_(); }); }
#define UNARY_BOTH(name) UNARY(name) UNARY_(name)

#define BINARY(name) \
  RHO_API Handle rho_##name(Handle a, Handle b) { return make([&] { return at::name(*a, *b); }); }
#define BINARY_(name) \
  RHO_API int rho_##name##_(Handle a, Handle b) { return run([&] { a->name##_(*b); }); }
#define BINARY_NUMBER(name) \
  RHO_API Handle rho_##name##_number(Handle a, Number b) { return make([&] { return at::name(*a, b.scalar()); }); }
#define BINARY_NUMBER_(name) \
  RHO_API int rho_##name##_number_(Handle a, Number b) { return run([&] { a->name##_(b.scalar()); }); }
#define BINARY_BOTH(name) BINARY(name) BINARY_(name)
#define BINARY_ALL(name) BINARY(name) BINARY_(name) BINARY_NUMBER(name) BINARY_NUMBER_(name)

UNARY_BOTH(abs)
UNARY_BOTH(acos)
UNARY_BOTH(asin)
UNARY_BOTH(atan)
UNARY_BOTH(bitwise_not)
UNARY_BOTH(ceil)
UNARY_BOTH(cos)
UNARY_BOTH(cosh)
UNARY_BOTH(erf)
UNARY_BOTH(erfc)
UNARY_BOTH(exp)
UNARY_BOTH(exp2)
UNARY_BOTH(expm1)
UNARY_BOTH(floor)
UNARY_BOTH(frac)
UNARY_BOTH(log)
UNARY_BOTH(log10)
UNARY_BOTH(log1p)
UNARY_BOTH(log2)
UNARY_BOTH(neg)
UNARY_BOTH(reciprocal)
UNARY_BOTH(relu)
UNARY_BOTH(rsqrt)
UNARY_BOTH(sigmoid)
UNARY(silu)
UNARY_BOTH(sin)
UNARY_BOTH(sinh)
UNARY_BOTH(sqrt)
UNARY(square)
UNARY_BOTH(tan)
UNARY_BOTH(tanh)
UNARY_BOTH(trunc)
UNARY(erfinv)
UNARY(isfinite)
UNARY(isinf)
UNARY(isnan)
UNARY(isneginf)
UNARY(isposinf)
UNARY(lgamma)
UNARY(log_sigmoid)
UNARY(logical_not)
UNARY(positive)
UNARY(sign)
UNARY(signbit)
UNARY(trace)

RHO_API int rho_silu_(Handle a) {
  return run([&] { at::silu_(*a); });
}
RHO_API int rho_logical_not_(Handle a) {
  return run([&] { a->logical_not_(); });
}
RHO_API int rho_sign_(Handle a) {
  return run([&] { a->sign_(); });
}
RHO_API Handle rho_round(Handle a, int64_t decimals) {
  return make([&] { return decimals == 0 ? at::round(*a) : at::round(*a, decimals); });
}
RHO_API int rho_round_(Handle a, int64_t decimals) {
  return run([&] { decimals == 0 ? a->round_() : a->round_(decimals); });
}
RHO_API Handle rho_nan_to_num(Handle a, double nan, double posinf, double neginf, int present) {
  return make([&] {
    return at::nan_to_num(*a, nan, present & 1 ? c10::optional<double>(posinf) : c10::optional<double>(),
                          present & 2 ? c10::optional<double>(neginf) : c10::optional<double>());
  });
}

BINARY_ALL(eq)
BINARY_ALL(ne)
BINARY_ALL(lt)
BINARY_ALL(le)
BINARY_ALL(gt)
BINARY_ALL(ge)
BINARY_ALL(mul)
BINARY_ALL(sub)
BINARY_ALL(fmod)
BINARY_ALL(remainder)
BINARY_ALL(pow)
BINARY_ALL(floor_divide)
BINARY_ALL(xlogy)
BINARY_BOTH(atan2)
BINARY_BOTH(bitwise_and)
BINARY_BOTH(bitwise_or)
BINARY_BOTH(bitwise_xor)
BINARY_BOTH(bitwise_left_shift)
BINARY_BOTH(bitwise_right_shift)
BINARY_BOTH(copysign)
BINARY_BOTH(logical_and)
BINARY_BOTH(logical_or)
BINARY_BOTH(logical_xor)
BINARY(bmm)
BINARY(dot)
BINARY(fmax)
BINARY(fmin)
BINARY(hypot)
BINARY(inner)
BINARY(logaddexp)
BINARY(matmul)
BINARY(maximum)
BINARY(minimum)
BINARY(mm)
BINARY(mv)
BINARY(outer)
BINARY_NUMBER(clamp_max)
BINARY_NUMBER(clamp_min)
BINARY_NUMBER_(clamp_max)
BINARY_NUMBER_(clamp_min)

RHO_API Handle rho_add(Handle a, Handle b, Number alpha) {
  return make([&] { return at::add(*a, *b, alpha.scalar()); });
}
RHO_API int rho_add_(Handle a, Handle b, Number alpha) {
  return run([&] { a->add_(*b, alpha.scalar()); });
}
RHO_API Handle rho_add_number(Handle a, Number b, Number alpha) {
  return make([&] { return at::add(*a, b.scalar(), alpha.scalar()); });
}
RHO_API int rho_add_number_(Handle a, Number b, Number alpha) {
  return run([&] { a->add_(b.scalar(), alpha.scalar()); });
}
// number - a
RHO_API Handle rho_rsub_number(Handle a, Number b) {
  return make([&] { return at::rsub(*a, b.scalar()); });
}
// number / a
RHO_API Handle rho_rdiv_number(Handle a, Number b) {
  return make([&] { return at::mul(at::reciprocal(*a), b.scalar()); });
}

// mode: 0 divides, 1 rounds toward zero, 2 down.
RHO_API Handle rho_div(Handle a, Handle b, int mode) {
  return make([&] { return mode == 0 ? at::div(*a, *b) : mode == 1 ? at::div(*a, *b, "trunc") : at::div(*a, *b, "floor"); });
}
RHO_API int rho_div_(Handle a, Handle b, int mode) {
  return run([&] { mode == 0 ? a->div_(*b) : mode == 1 ? a->div_(*b, "trunc") : a->div_(*b, "floor"); });
}
RHO_API Handle rho_div_number(Handle a, Number b, int mode) {
  return make([&] {
    auto number = b.scalar();
    return mode == 0 ? at::div(*a, number) : mode == 1 ? at::div(*a, number, "trunc") : at::div(*a, number, "floor");
  });
}
RHO_API int rho_div_number_(Handle a, Number b, int mode) {
  return run([&] {
    auto number = b.scalar();
    mode == 0 ? a->div_(number) : mode == 1 ? a->div_(number, "trunc") : a->div_(number, "floor");
  });
}

RHO_API Handle rho_clamp(Handle a, Number min, Number max) {
  return make([&] { return at::clamp(*a, min.optional(), max.optional()); });
}
RHO_API int rho_clamp_(Handle a, Number min, Number max) {
  return run([&] { a->clamp_(min.optional(), max.optional()); });
}
RHO_API Handle rho_clamp_tensor(Handle a, Handle min, Handle max) {
  return make([&] { return at::clamp(*a, optional_tensor(min), optional_tensor(max)); });
}
RHO_API int rho_clamp_tensor_(Handle a, Handle min, Handle max) {
  return run([&] { a->clamp_(optional_tensor(min), optional_tensor(max)); });
}
RHO_API Handle rho_addcmul(Handle a, Handle b, Handle c, Number value) {
  return make([&] { return at::addcmul(*a, *b, *c, value.scalar()); });
}
RHO_API int rho_addcmul_(Handle a, Handle b, Handle c, Number value) {
  return run([&] { a->addcmul_(*b, *c, value.scalar()); });
}
RHO_API Handle rho_addcdiv(Handle a, Handle b, Handle c, Number value) {
  return make([&] { return at::addcdiv(*a, *b, *c, value.scalar()); });
}
RHO_API int rho_addcdiv_(Handle a, Handle b, Handle c, Number value) {
  return run([&] { a->addcdiv_(*b, *c, value.scalar()); });
}
RHO_API Handle rho_lerp(Handle a, Handle end, Handle weight) {
  return make([&] { return at::lerp(*a, *end, *weight); });
}
RHO_API int rho_lerp_(Handle a, Handle end, Handle weight) {
  return run([&] { a->lerp_(*end, *weight); });
}
RHO_API Handle rho_where(Handle condition, Handle a, Handle b) {
  return make([&] { return at::where(*condition, *a, *b); });
}
RHO_API int rho_equal(Handle a, Handle b) {
  int equal = -1;
  run([&] { equal = a->equal(*b) ? 1 : 0; });
  return equal;
}
RHO_API int rho_allclose(Handle a, Handle b, double rtol, double atol, int equal_nan) {
  int close = -1;
  run([&] { close = at::allclose(*a, *b, rtol, atol, equal_nan != 0) ? 1 : 0; });
  return close;
}
RHO_API Handle rho_isclose(Handle a, Handle b, double rtol, double atol, int equal_nan) {
  return make([&] { return at::isclose(*a, *b, rtol, atol, equal_nan != 0); });
}

// Matrix products
#define PRODUCT(name)                                                                          \
  RHO_API Handle rho_##name(Handle a, Handle b, Handle c, double beta, double alpha) {         \
    return make([&] { return at::name(*a, *b, *c, at::Scalar(beta), at::Scalar(alpha)); });    \
  }
#define PRODUCT_(name)                                                                         \
  RHO_API int rho_##name##_(Handle a, Handle b, Handle c, double beta, double alpha) {         \
    return run([&] { a->name##_(*b, *c, at::Scalar(beta), at::Scalar(alpha)); });              \
  }
PRODUCT(addmm)
PRODUCT_(addmm)
PRODUCT(addbmm)
PRODUCT_(addbmm)
PRODUCT(addmv)
PRODUCT_(addmv)
PRODUCT(addr)
PRODUCT_(addr)
PRODUCT(baddbmm)

RHO_API Handle rho_einsum(const char* equation, Handle const* tensors, int64_t count) {
  return make([&] { return at::einsum(equation, tensor_list(tensors, count)); });
}
RHO_API Handle rho_tensordot(Handle a, Handle b, const int64_t* dims_a, int64_t count_a, const int64_t* dims_b,
                             int64_t count_b) {
  return make(
      [&] { return at::tensordot(*a, *b, at::IntArrayRef(dims_a, count_a), at::IntArrayRef(dims_b, count_b)); });
}
RHO_API Handle rho_vector_norm(Handle a, double order, const int64_t* dims, int64_t count, int keepdim) {
  return make([&] {
    return at::linalg_vector_norm(*a, at::Scalar(order),
                                  dims ? at::OptionalIntArrayRef(at::IntArrayRef(dims, count)) : at::OptionalIntArrayRef(),
                                  keepdim != 0);
  });
}
// sqrt(sum of squares over all tensors), the order-th root in general; each tensor's norm in its own precision.
RHO_API Handle rho_total_norm(Handle const* tensors, int64_t count, double order) {
  return make([&] {
    auto list = tensor_list(tensors, count);
    std::vector<at::Tensor> norms;
    for (auto& tensor : list) norms.push_back(at::linalg_vector_norm(tensor, order).to(list[0].device()));
    return at::linalg_vector_norm(at::stack(norms), order);
  });
}

// Reductions. A null dims means all of them.
RHO_API Handle rho_sum(Handle a, const int64_t* dims, int64_t count, int keepdim, int type) {
  return make([&] {
    return dims ? at::sum(*a, at::IntArrayRef(dims, count), keepdim != 0, optional_type(type))
                : at::sum(*a, optional_type(type));
  });
}
RHO_API Handle rho_mean(Handle a, const int64_t* dims, int64_t count, int keepdim, int type) {
  return make([&] {
    return dims ? at::mean(*a, at::IntArrayRef(dims, count), keepdim != 0, optional_type(type))
                : at::mean(*a, optional_type(type));
  });
}
RHO_API Handle rho_nansum(Handle a) {
  return make([&] { return at::nansum(*a); });
}
RHO_API Handle rho_prod(Handle a, int type) {
  return make([&] { return at::prod(*a, optional_type(type)); });
}
RHO_API Handle rho_prod_dim(Handle a, int64_t dim, int keepdim, int type) {
  return make([&] { return at::prod(*a, dim, keepdim != 0, optional_type(type)); });
}
RHO_API Handle rho_amax(Handle a, const int64_t* dims, int64_t count, int keepdim) {
  return make([&] { return at::amax(*a, at::IntArrayRef(dims, count), keepdim != 0); });
}
RHO_API Handle rho_amin(Handle a, const int64_t* dims, int64_t count, int keepdim) {
  return make([&] { return at::amin(*a, at::IntArrayRef(dims, count), keepdim != 0); });
}
#define REDUCE(name) \
  RHO_API Handle rho_##name##_all(Handle a) { return make([&] { return at::name(*a); }); }
REDUCE(all)
REDUCE(any)
REDUCE(max)
REDUCE(min)
REDUCE(median)
RHO_API Handle rho_all_dim(Handle a, int64_t dim, int keepdim) {
  return make([&] { return at::all(*a, dim, keepdim != 0); });
}
RHO_API Handle rho_any_dim(Handle a, int64_t dim, int keepdim) {
  return make([&] { return at::any(*a, dim, keepdim != 0); });
}
RHO_API Handle rho_argmax(Handle a, int64_t dim, int has_dim, int keepdim) {
  return make([&] { return at::argmax(*a, optional_int(dim, has_dim), keepdim != 0); });
}
RHO_API Handle rho_argmin(Handle a, int64_t dim, int has_dim, int keepdim) {
  return make([&] { return at::argmin(*a, optional_int(dim, has_dim), keepdim != 0); });
}
RHO_API int rho_max_dim(Handle a, int64_t dim, int keepdim, Handle* results) {
  return run([&] { store_pair(results, at::max(*a, dim, keepdim != 0)); });
}
RHO_API int rho_min_dim(Handle a, int64_t dim, int keepdim, Handle* results) {
  return run([&] { store_pair(results, at::min(*a, dim, keepdim != 0)); });
}
RHO_API int rho_aminmax(Handle a, int64_t dim, int has_dim, int keepdim, Handle* results) {
  return run([&] { store_pair(results, at::aminmax(*a, optional_int(dim, has_dim), keepdim != 0)); });
}
RHO_API Handle rho_logsumexp(Handle a, int64_t dim, int keepdim) {
  return make([&] { return at::logsumexp(*a, dim, keepdim != 0); });
}
RHO_API Handle rho_norm(Handle a, double p) {
  return make([&] { return at::norm(*a, p); });
}
RHO_API Handle rho_norm_dim(Handle a, double p, int64_t dim, int keepdim) {
  return make([&] { return at::norm(*a, p, dim, keepdim != 0); });
}
RHO_API Handle rho_std(Handle a, const int64_t* dims, int64_t count, int unbiased, int keepdim) {
  return make([&] {
    return dims ? at::std(*a, at::IntArrayRef(dims, count), unbiased != 0, keepdim != 0) : at::std(*a, unbiased != 0);
  });
}
RHO_API Handle rho_var(Handle a, const int64_t* dims, int64_t count, int unbiased, int keepdim) {
  return make([&] {
    return dims ? at::var(*a, at::IntArrayRef(dims, count), unbiased != 0, keepdim != 0) : at::var(*a, unbiased != 0);
  });
}
RHO_API Handle rho_count_nonzero(Handle a, const int64_t* dims, int64_t count) {
  return make([&] { return dims ? at::count_nonzero(*a, at::IntArrayRef(dims, count)) : at::count_nonzero(*a); });
}
RHO_API Handle rho_quantile(Handle a, Handle q, int64_t dim, int keepdim) {
  return make([&] { return at::quantile(*a, *q, dim, keepdim != 0); });
}
RHO_API Handle rho_cumsum(Handle a, int64_t dim, int type) {
  return make([&] { return at::cumsum(*a, dim, optional_type(type)); });
}
RHO_API Handle rho_cumprod(Handle a, int64_t dim, int type) {
  return make([&] { return at::cumprod(*a, dim, optional_type(type)); });
}
RHO_API Handle rho_logcumsumexp(Handle a, int64_t dim) {
  return make([&] { return at::logcumsumexp(*a, dim); });
}

// Sorting
RHO_API int rho_topk(Handle a, int64_t k, int64_t dim, int largest, int sorted, Handle* results) {
  return run([&] { store_pair(results, at::topk(*a, k, dim, largest != 0, sorted != 0)); });
}
RHO_API int rho_sort(Handle a, int64_t dim, int descending, int stable, Handle* results) {
  return run([&] { store_pair(results, at::sort(*a, c10::optional<bool>(stable != 0), dim, descending != 0)); });
}
RHO_API Handle rho_argsort(Handle a, int64_t dim, int descending) {
  return make([&] { return at::argsort(*a, dim, descending != 0); });
}
RHO_API int rho_kthvalue(Handle a, int64_t k, int64_t dim, int keepdim, Handle* results) {
  return run([&] { store_pair(results, at::kthvalue(*a, k, dim, keepdim != 0)); });
}
RHO_API Handle rho_searchsorted(Handle sorted, Handle values, int int32, int right, Handle sorter) {
  return make([&] {
    return at::searchsorted(*sorted, *values, int32 != 0, right != 0, c10::nullopt, optional_tensor(sorter));
  });
}
RHO_API Handle rho_bucketize(Handle a, Handle boundaries, int int32, int right) {
  return make([&] { return at::bucketize(*a, *boundaries, int32 != 0, right != 0); });
}
RHO_API Handle rho_bincount(Handle a, Handle weights, int64_t minlength) {
  return make([&] { return at::bincount(*a, optional_tensor(weights), minlength); });
}
RHO_API int rho_unique(Handle a, int sorted, int inverse, int counts, int64_t dim, int has_dim, Handle* results) {
  return run([&] {
    auto unique = has_dim ? at::unique_dim(*a, dim, sorted != 0, inverse != 0, counts != 0)
                          : at::_unique2(*a, sorted != 0, inverse != 0, counts != 0);
    store_pair(results, unique);
    results[2] = new at::Tensor(std::get<2>(unique));
  });
}

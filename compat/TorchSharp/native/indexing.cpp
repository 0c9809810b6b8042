// Indexing, gathering and scattering.
#include "rho_torch.h"

#include <ATen/TensorIndexing.h>

namespace {
enum class IndexKind : int64_t { none, ellipsis, boolean, integer, tensor, slice };

// One entry of tensor[...]; present has a bit for each of start, stop and step.
struct Index {
  int64_t kind;
  int64_t present;
  int64_t start;
  int64_t stop;
  int64_t step;
  Handle tensor;
};

c10::optional<at::indexing::TensorIndex> decode_simple(const Index& index) {
  using at::indexing::TensorIndex;
  switch (static_cast<IndexKind>(index.kind)) {
    case IndexKind::ellipsis:
      return TensorIndex(at::indexing::Ellipsis);
    case IndexKind::boolean:
      return TensorIndex(index.start != 0);
    case IndexKind::integer:
      return TensorIndex(index.start);
    case IndexKind::tensor:
      return TensorIndex(*index.tensor);
    case IndexKind::none:
      return TensorIndex(at::indexing::None);
    default:
      return c10::nullopt;
  }
}

std::vector<at::indexing::TensorIndex> decode(const Index* indices, int64_t count) {
  std::vector<at::indexing::TensorIndex> list;
  list.reserve(count);
  for (int64_t i = 0; i < count; i++) {
    const Index& index = indices[i];
    if (auto simple = decode_simple(index)) {
      list.push_back(std::move(*simple));
    } else {
      using Bound = c10::optional<int64_t>;
      list.push_back(at::indexing::Slice(index.present & 1 ? Bound(index.start) : Bound(),
                                         index.present & 2 ? Bound(index.stop) : Bound(),
                                         index.present & 4 ? Bound(index.step) : Bound()));
    }
  }
  return list;
}
}  // namespace

RHO_API Handle rho_index(Handle a, const Index* indices, int64_t count) {
  return make([&] { return a->index(decode(indices, count)); });
}
RHO_API int rho_index_put_(Handle a, const Index* indices, int64_t count, Handle value) {
  return run([&] { a->index_put_(decode(indices, count), *value); });
}
RHO_API int rho_index_put_number_(Handle a, const Index* indices, int64_t count, Number value) {
  return run([&] { a->index_put_(decode(indices, count), value.scalar()); });
}
// Only tensors (null takes the whole dimension), so that values can be accumulated.
RHO_API int rho_index_put_accumulate_(Handle a, Handle const* indices, int64_t count, Handle value) {
  return run([&] {
    c10::List<c10::optional<at::Tensor>> list;
    for (int64_t i = 0; i < count; i++) list.push_back(optional_tensor(indices[i]));
    a->index_put_(list, *value, /*accumulate=*/true);
  });
}

RHO_API Handle rho_gather(Handle a, int64_t dim, Handle index, int sparse_grad) {
  return make([&] { return a->gather(dim, *index, sparse_grad != 0); });
}
RHO_API Handle rho_scatter(Handle a, int64_t dim, Handle index, Handle source) {
  return make([&] { return a->scatter(dim, *index, *source); });
}
RHO_API int rho_scatter_(Handle a, int64_t dim, Handle index, Handle source) {
  return run([&] { a->scatter_(dim, *index, *source); });
}
RHO_API Handle rho_scatter_add(Handle a, int64_t dim, Handle index, Handle source) {
  return make([&] { return a->scatter_add(dim, *index, *source); });
}
RHO_API int rho_scatter_add_(Handle a, int64_t dim, Handle index, Handle source) {
  return run([&] { a->scatter_add_(dim, *index, *source); });
}
RHO_API Handle rho_index_select(Handle a, int64_t dim, Handle index) {
  return make([&] { return a->index_select(dim, *index); });
}
RHO_API Handle rho_index_add(Handle a, int64_t dim, Handle index, Handle source, Number alpha) {
  return make([&] { return a->index_add(dim, *index, *source, alpha.scalar()); });
}
RHO_API int rho_index_add_(Handle a, int64_t dim, Handle index, Handle source, Number alpha) {
  return run([&] { a->index_add_(dim, *index, *source, alpha.scalar()); });
}
RHO_API Handle rho_index_copy(Handle a, int64_t dim, Handle index, Handle source) {
  return make([&] { return a->index_copy(dim, *index, *source); });
}
RHO_API int rho_index_copy_(Handle a, int64_t dim, Handle index, Handle source) {
  return run([&] { a->index_copy_(dim, *index, *source); });
}
RHO_API Handle rho_index_fill(Handle a, int64_t dim, Handle index, Number value) {
  return make([&] { return a->index_fill(dim, *index, value.scalar()); });
}
RHO_API int rho_index_fill_(Handle a, int64_t dim, Handle index, Number value) {
  return run([&] { a->index_fill_(dim, *index, value.scalar()); });
}
RHO_API Handle rho_masked_fill(Handle a, Handle mask, Number value) {
  return make([&] { return a->masked_fill(*mask, value.scalar()); });
}
RHO_API int rho_masked_fill_(Handle a, Handle mask, Number value) {
  return run([&] { a->masked_fill_(*mask, value.scalar()); });
}
RHO_API Handle rho_masked_scatter(Handle a, Handle mask, Handle source) {
  return make([&] { return a->masked_scatter(*mask, *source); });
}
RHO_API int rho_masked_scatter_(Handle a, Handle mask, Handle source) {
  return run([&] { a->masked_scatter_(*mask, *source); });
}
RHO_API Handle rho_masked_select(Handle a, Handle mask) {
  return make([&] { return a->masked_select(*mask); });
}
RHO_API Handle rho_take(Handle a, Handle index) {
  return make([&] { return a->take(*index); });
}
RHO_API Handle rho_take_along_dim(Handle a, Handle index, int64_t dim, int has_dim) {
  return make([&] { return at::take_along_dim(*a, *index, optional_int(dim, has_dim)); });
}
RHO_API Handle rho_nonzero(Handle a) {
  return make([&] { return a->nonzero(); });
}
RHO_API Handle rho_argwhere(Handle a) {
  return make([&] { return a->argwhere(); });
}
RHO_API Handle rho_isin(Handle a, Handle elements, int assume_unique, int invert) {
  return make([&] { return at::isin(*a, *elements, assume_unique != 0, invert != 0); });
}
RHO_API Handle* rho_where_indices(Handle a, int64_t* length) {
  return make_list(length, [&] { return at::where(*a); });
}

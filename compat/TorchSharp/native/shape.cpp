// Views and shapes, joining and splitting.
#include "rho_torch.h"

#define DIMS at::IntArrayRef(dims, count)

RHO_API Handle rho_view(Handle a, const int64_t* dims, int64_t count) {
  return make([&] { return a->view(DIMS); });
}
RHO_API Handle rho_reshape(Handle a, const int64_t* dims, int64_t count) {
  return make([&] { return a->reshape(DIMS); });
}
RHO_API Handle rho_permute(Handle a, const int64_t* dims, int64_t count) {
  return make([&] { return a->permute(DIMS); });
}
RHO_API Handle rho_expand(Handle a, const int64_t* dims, int64_t count, int implicit) {
  return make([&] { return a->expand(DIMS, implicit != 0); });
}
RHO_API Handle rho_repeat(Handle a, const int64_t* dims, int64_t count) {
  return make([&] { return a->repeat(DIMS); });
}
RHO_API Handle rho_tile(Handle a, const int64_t* dims, int64_t count) {
  return make([&] { return a->tile(DIMS); });
}
RHO_API Handle rho_flip(Handle a, const int64_t* dims, int64_t count) {
  return make([&] { return a->flip(DIMS); });
}
RHO_API Handle rho_roll(Handle a, const int64_t* shifts, int64_t shift_count, const int64_t* dims, int64_t count) {
  return make([&] { return a->roll(at::IntArrayRef(shifts, shift_count), DIMS); });
}
RHO_API Handle rho_movedim(Handle a, const int64_t* source, int64_t source_count, const int64_t* dims, int64_t count) {
  return make([&] { return a->movedim(at::IntArrayRef(source, source_count), DIMS); });
}
RHO_API Handle rho_as_strided(Handle a, const int64_t* sizes, int64_t rank, const int64_t* dims, int64_t count,
                              int64_t offset) {
  return make([&] { return a->as_strided(at::IntArrayRef(sizes, rank), DIMS, offset); });
}
RHO_API Handle rho_transpose(Handle a, int64_t first, int64_t second) {
  return make([&] { return a->transpose(first, second); });
}
RHO_API int rho_transpose_(Handle a, int64_t first, int64_t second) {
  return run([&] { a->transpose_(first, second); });
}
RHO_API Handle rho_t(Handle a) {
  return make([&] { return a->t(); });
}
RHO_API Handle rho_numpy_T(Handle a) {
  return make([&] { return a->numpy_T(); });
}
RHO_API Handle rho_mT(Handle a) {
  return make([&] { return a->mT(); });
}
RHO_API Handle rho_unsqueeze(Handle a, int64_t dim) {
  return make([&] { return a->unsqueeze(dim); });
}
RHO_API int rho_unsqueeze_(Handle a, int64_t dim) {
  return run([&] { a->unsqueeze_(dim); });
}
RHO_API Handle rho_squeeze(Handle a, int64_t dim, int has_dim) {
  return make([&] { return has_dim ? a->squeeze(dim) : a->squeeze(); });
}
RHO_API int rho_squeeze_(Handle a, int64_t dim, int has_dim) {
  return run([&] { has_dim ? a->squeeze_(dim) : a->squeeze_(); });
}
RHO_API Handle rho_flatten(Handle a, int64_t start, int64_t end) {
  return make([&] { return a->flatten(start, end); });
}
RHO_API Handle rho_unflatten(Handle a, int64_t dim, const int64_t* dims, int64_t count) {
  return make([&] { return a->unflatten(dim, DIMS); });
}
RHO_API Handle rho_narrow(Handle a, int64_t dim, int64_t start, int64_t length) {
  return make([&] { return a->narrow(dim, start, length); });
}
RHO_API Handle rho_slice(Handle a, int64_t dim, int64_t start, int64_t finish, int64_t step) {
  return make([&] { return a->slice(dim, start, finish, step); });
}
RHO_API Handle rho_select(Handle a, int64_t dim, int64_t index) {
  return make([&] { return a->select(dim, index); });
}
RHO_API Handle rho_unfold(Handle a, int64_t dim, int64_t size, int64_t step) {
  return make([&] { return a->unfold(dim, size, step); });
}
RHO_API Handle rho_diagonal(Handle a, int64_t offset, int64_t dim1, int64_t dim2) {
  return make([&] { return a->diagonal(offset, dim1, dim2); });
}
RHO_API Handle rho_diag(Handle a, int64_t diagonal) {
  return make([&] { return a->diag(diagonal); });
}
RHO_API Handle rho_tril(Handle a, int64_t diagonal) {
  return make([&] { return a->tril(diagonal); });
}
RHO_API Handle rho_triu(Handle a, int64_t diagonal) {
  return make([&] { return a->triu(diagonal); });
}
RHO_API int rho_tril_(Handle a, int64_t diagonal) {
  return run([&] { a->tril_(diagonal); });
}
RHO_API int rho_triu_(Handle a, int64_t diagonal) {
  return run([&] { a->triu_(diagonal); });
}
RHO_API Handle rho_repeat_interleave(Handle a, int64_t repeats, int64_t dim, int has_dim, int64_t output_size,
                                     int has_output_size) {
  return make([&] {
    return a->repeat_interleave(repeats, optional_int(dim, has_dim), optional_int(output_size, has_output_size));
  });
}
RHO_API Handle rho_repeat_interleave_tensor(Handle a, Handle repeats, int64_t dim, int has_dim, int64_t output_size,
                                            int has_output_size) {
  return make([&] {
    return a->repeat_interleave(*repeats, optional_int(dim, has_dim), optional_int(output_size, has_output_size));
  });
}

RHO_API Handle rho_cat(Handle const* tensors, int64_t count, int64_t dim) {
  return make([&] { return at::cat(tensor_list(tensors, count), dim); });
}
RHO_API Handle rho_stack(Handle const* tensors, int64_t count, int64_t dim) {
  return make([&] { return at::stack(tensor_list(tensors, count), dim); });
}
RHO_API Handle rho_hstack(Handle const* tensors, int64_t count) {
  return make([&] { return at::hstack(tensor_list(tensors, count)); });
}
RHO_API Handle rho_vstack(Handle const* tensors, int64_t count) {
  return make([&] { return at::vstack(tensor_list(tensors, count)); });
}
RHO_API Handle* rho_chunk(Handle a, int64_t chunks, int64_t dim, int64_t* length) {
  return make_list(length, [&] { return a->chunk(chunks, dim); });
}
RHO_API Handle* rho_split(Handle a, int64_t size, int64_t dim, int64_t* length) {
  return make_list(length, [&] { return a->split(size, dim); });
}
RHO_API Handle* rho_split_with_sizes(Handle a, const int64_t* dims, int64_t count, int64_t dim, int64_t* length) {
  return make_list(length, [&] { return a->split_with_sizes(DIMS, dim); });
}
RHO_API Handle* rho_tensor_split(Handle a, int64_t sections, int64_t dim, int64_t* length) {
  return make_list(length, [&] { return a->tensor_split(sections, dim); });
}
RHO_API Handle* rho_tensor_split_indices(Handle a, const int64_t* dims, int64_t count, int64_t dim, int64_t* length) {
  return make_list(length, [&] { return a->tensor_split(DIMS, dim); });
}
RHO_API Handle* rho_unbind(Handle a, int64_t dim, int64_t* length) {
  return make_list(length, [&] { return a->unbind(dim); });
}
RHO_API Handle* rho_broadcast_tensors(Handle const* tensors, int64_t count, int64_t* length) {
  return make_list(length, [&] { return at::broadcast_tensors(tensor_list(tensors, count)); });
}
RHO_API Handle* rho_meshgrid(Handle const* tensors, int64_t count, const char* indexing, int64_t* length) {
  return make_list(length, [&] { return at::meshgrid(tensor_list(tensors, count), indexing); });
}

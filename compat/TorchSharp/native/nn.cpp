// What nn.functional needs beyond elementwise functions.
#include "rho_torch.h"

#include <torch/version.h>

#include <cmath>
#include <limits>

RHO_API Handle rho_linear(Handle input, Handle weight, Handle bias) {
  return make([&] { return at::linear(*input, *weight, optional_tensor(bias)); });
}
RHO_API Handle rho_softmax(Handle a, int64_t dim, int type) {
  return make([&] { return at::softmax(*a, dim, optional_type(type)); });
}
RHO_API Handle rho_log_softmax(Handle a, int64_t dim, int type) {
  return make([&] { return at::log_softmax(*a, dim, optional_type(type)); });
}
RHO_API Handle rho_gelu(Handle a, int tanh) {
  return make([&] { return at::gelu(*a, tanh ? "tanh" : "none"); });
}
RHO_API int rho_gelu_(Handle a, int tanh) {
  return run([&] { at::gelu_(*a, tanh ? "tanh" : "none"); });
}
RHO_API Handle rho_softplus(Handle a, double beta, double threshold) {
  return make([&] { return at::softplus(*a, beta, threshold); });
}
RHO_API Handle rho_leaky_relu(Handle a, double slope) {
  return make([&] { return at::leaky_relu(*a, slope); });
}
RHO_API Handle rho_dropout(Handle a, double p, int training) {
  return make([&] { return at::dropout(*a, p, training != 0); });
}
RHO_API int rho_dropout_(Handle a, double p, int training) {
  return run([&] { at::dropout_(*a, p, training != 0); });
}
RHO_API Handle rho_cross_entropy(Handle input, Handle target, Handle weight, int64_t ignore_index, int64_t reduction,
                                 double label_smoothing) {
  return make([&] {
    return at::cross_entropy_loss(*input, *target, optional_tensor(weight), reduction, ignore_index, label_smoothing);
  });
}
RHO_API Handle rho_nll_loss(Handle input, Handle target, Handle weight, int64_t reduction) {
  return make([&] { return at::nll_loss_nd(*input, *target, optional_tensor(weight), reduction); });
}
RHO_API Handle rho_mse_loss(Handle input, Handle target, int64_t reduction) {
  return make([&] { return at::mse_loss(*input, *target, reduction); });
}
RHO_API Handle rho_l1_loss(Handle input, Handle target, int64_t reduction) {
  return make([&] { return at::l1_loss(*input, *target, reduction); });
}
RHO_API Handle rho_kl_div(Handle input, Handle target, int64_t reduction, int log_target) {
  return make([&] { return at::kl_div(*input, *target, reduction, log_target != 0); });
}
RHO_API Handle rho_layer_norm(Handle input, const int64_t* shape, int64_t rank, Handle weight, Handle bias,
                              double epsilon) {
  return make([&] {
    return at::layer_norm(*input, at::IntArrayRef(shape, rank), optional_tensor(weight), optional_tensor(bias), epsilon);
  });
}
RHO_API Handle rho_normalize(Handle a, double p, int64_t dim, double epsilon) {
  return make([&] {
    auto norm = at::norm(*a, p, dim, /*keepdim=*/true).clamp_min(epsilon);
    return *a / norm;
  });
}
RHO_API Handle rho_one_hot(Handle a, int64_t classes) {
  return make([&] { return at::one_hot(*a, classes); });
}
// mode: as PaddingModes of TorchSharp.
RHO_API Handle rho_pad(Handle a, const int64_t* pad, int64_t count, int mode, double value) {
  return make([&] {
    at::IntArrayRef sizes(pad, count);
    if (mode == 0) return at::constant_pad_nd(*a, sizes, 0);
    if (mode == 4) return at::constant_pad_nd(*a, sizes, value);
    const char* name = mode == 1 ? "reflect" : mode == 2 ? "replicate" : "circular";
    return at::pad(*a, sizes, name);
  });
}

// softmax(query key^T / sqrt(width) + mask) value, over (..., length, width).
RHO_API Handle rho_attention(Handle query, Handle key, Handle value, Handle mask, double dropout, int causal) {
  return make([&] {
#if TORCH_VERSION_MAJOR >= 2
    return at::scaled_dot_product_attention(*query, *key, *value, optional_tensor(mask), dropout, causal != 0);
#else
    TORCH_CHECK(!(mask && causal), "scaled_dot_product_attention: attn_mask must not be set when is_causal is");
    TORCH_CHECK(query->dim() >= 2 && key->dim() >= 2 && value->dim() >= 2,
                "scaled_dot_product_attention: query, key and value must have at least 2 dimensions");
    // Both factors are scaled by the root, so that products of half precision do not overflow.
    double root = std::sqrt(1.0 / std::sqrt(static_cast<double>(query->size(-1))));
    auto scores = at::matmul(*query * root, (*key * root).transpose(-2, -1));
    const double infinity = std::numeric_limits<double>::infinity();
    if (causal) {
      auto later = at::ones({query->size(-2), key->size(-2)}, query->options().dtype(at::kBool)).triu_(1);
      scores = scores.masked_fill(later, -infinity);
    } else if (mask) {
      scores = mask->scalar_type() == at::kBool ? scores.masked_fill(mask->logical_not(), -infinity) : scores + *mask;
    }
    auto weights = at::softmax(scores, -1);
    if (dropout > 0) weights = at::dropout(weights, dropout, /*train=*/true);
    return at::matmul(weights, *value);
#endif
  });
}

// Backward passes, and autograd functions whose forward and backward are written in .NET.
#include "managed_error.h"
#include "rho_torch.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <mutex>
#include <unordered_set>

using torch::autograd::variable_list;

RHO_API int rho_backward(Handle const* tensors, int64_t count, Handle const* grads, int64_t grad_count, int retain_graph,
                         int create_graph, Handle const* inputs, int64_t input_count) {
  return run([&] {
    torch::autograd::backward(tensor_list(tensors, count), tensor_list(grads, grad_count), retain_graph != 0,
                              create_graph != 0, tensor_list(inputs, input_count));
  });
}
RHO_API Handle* rho_grad_of(Handle const* outputs, int64_t output_count, Handle const* inputs, int64_t input_count,
                            Handle const* grads, int64_t grad_count, int retain_graph, int create_graph,
                            int allow_unused, int64_t* length) {
  return make_list(length, [&] {
    return torch::autograd::grad(tensor_list(outputs, output_count), tensor_list(inputs, input_count),
                                 tensor_list(grads, grad_count), retain_graph != 0, create_graph != 0,
                                 allow_unused != 0);
  });
}

namespace {
// What .NET gives: backward calls ctx's Function with the gradients of the outputs (each handle now .NET's, null for
// undefined) and fills results with handles for the gradients of the inputs (now ours). It returns null, or the
// GCHandle of the exception it ended with, and then its message in UTF-8, to be freed with release_message.
struct Callbacks {
  void* (*backward)(void* state, Handle* grads, int64_t grad_count, Handle* results, int64_t result_count,
                    char** message);
  void (*release)(void* handle);
  void (*release_message)(char* message);
};
Callbacks callbacks;

struct ManagedNode : torch::autograd::Node {
  explicit ManagedNode(void* state) : state(state) {}
  ~ManagedNode() override { callbacks.release(state); }

  variable_list apply(variable_list&& grads) override {
    std::vector<Handle> arguments(grads.size());
    for (size_t i = 0; i < grads.size(); i++) {
      if (grads[i].defined())
        arguments[i] = new at::Tensor(grads[i]);
      else if (materialize)
        arguments[i] = new at::Tensor(input_metadata(i).zeros_like());
    }
    std::vector<Handle> results(num_outputs());
    char* message = nullptr;
    void* exception = callbacks.backward(state, arguments.data(), static_cast<int64_t>(arguments.size()), results.data(),
                                         static_cast<int64_t>(results.size()), &message);
    variable_list output;
    output.reserve(results.size());
    for (Handle result : results) {
      output.push_back(value_or_undefined(result));
      delete result;
    }
    if (exception) {
      std::shared_ptr<void> owner(exception, [](void* handle) { callbacks.release(handle); });
      std::string text(message ? message : "");
      callbacks.release_message(message);
      throw ManagedError(std::move(text), std::move(owner));
    }
    return output;
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(saved_mutex);
    saved.clear();
    released = true;
  }

  std::string name() const override { return node_name; }

  void* state;
  std::string node_name;
  bool materialize = true;
  std::mutex saved_mutex;
  std::vector<torch::autograd::SavedVariable> saved;
  bool released = false;
};

// _wrap_outputs takes more arguments since libtorch 2.1 and 2.4; the longest list that compiles is the right one.
template <int N>
struct Rank : Rank<N - 1> {};
template <>
struct Rank<0> {};

at::Tensor view_as_self(const at::Tensor& tensor) { return tensor.view_as(tensor); }

using TensorSet = std::unordered_set<at::TensorImpl*>;
using Outputs = std::vector<c10::optional<at::Tensor>>;

template <class Node>
auto wrap(Rank<3>, const variable_list& inputs, const TensorSet& fixed, const TensorSet& dirty, const Outputs& outputs,
          const Node& node, torch::autograd::_jvp_fn_t jvp)
    -> decltype(torch::autograd::_wrap_outputs(inputs, fixed, dirty, outputs, node, jvp, {}, view_as_self, false)) {
  return torch::autograd::_wrap_outputs(inputs, fixed, dirty, outputs, node, jvp, {}, view_as_self, false);
}
template <class Node>
auto wrap(Rank<2>, const variable_list& inputs, const TensorSet& fixed, const TensorSet& dirty, const Outputs& outputs,
          const Node& node, torch::autograd::_jvp_fn_t jvp)
    -> decltype(torch::autograd::_wrap_outputs(inputs, fixed, dirty, outputs, node, jvp, {}, view_as_self)) {
  return torch::autograd::_wrap_outputs(inputs, fixed, dirty, outputs, node, jvp, {}, view_as_self);
}
template <class Node>
auto wrap(Rank<1>, const variable_list& inputs, const TensorSet& fixed, const TensorSet& dirty, const Outputs& outputs,
          const Node& node, torch::autograd::_jvp_fn_t jvp)
    -> decltype(torch::autograd::_wrap_outputs(inputs, fixed, dirty, outputs, node, jvp, {})) {
  return torch::autograd::_wrap_outputs(inputs, fixed, dirty, outputs, node, jvp, {});
}
template <class Node>
auto wrap(Rank<0>, const variable_list& inputs, const TensorSet& fixed, const TensorSet& dirty, const Outputs& outputs,
          const Node& node, torch::autograd::_jvp_fn_t jvp)
    -> decltype(torch::autograd::_wrap_outputs(inputs, fixed, dirty, outputs, node, jvp)) {
  return torch::autograd::_wrap_outputs(inputs, fixed, dirty, outputs, node, jvp);
}

using NodePointer = std::shared_ptr<ManagedNode>;
}  // namespace

RHO_API void rho_function_callbacks(const Callbacks* functions) { callbacks = *functions; }

// The node owns state, a GCHandle. The caller owns the pointer until rho_node_free; the graph keeps the node alive.
RHO_API NodePointer* rho_node_new(void* state, const char* name, Handle const* inputs, int64_t count) {
  try {
    NodePointer node(new ManagedNode(state), torch::autograd::deleteNode);
    node->node_name = name;
    node->set_next_edges(torch::autograd::collect_next_edges(tensor_list(inputs, count)));
    return new NodePointer(std::move(node));
  } catch (...) {
    record_error();
    return nullptr;
  }
}
RHO_API void rho_node_free(NodePointer* node) { delete node; }

// Makes the outputs of a forward part of the graph; node is null when nothing requires a gradient.
RHO_API Handle* rho_node_wrap(NodePointer* node, Handle const* inputs, int64_t input_count, Handle const* outputs,
                              int64_t output_count, Handle const* fixed, int64_t fixed_count, Handle const* dirty,
                              int64_t dirty_count, int materialize, int64_t* length) {
  return make_list(length, [&] {
    TensorSet fixed_set, dirty_set;
    for (int64_t i = 0; i < fixed_count; i++) fixed_set.insert(fixed[i]->unsafeGetTensorImpl());
    for (int64_t i = 0; i < dirty_count; i++) {
      dirty[i]->unsafeGetTensorImpl()->bump_version();
      dirty_set.insert(dirty[i]->unsafeGetTensorImpl());
    }
    Outputs raw;
    for (int64_t i = 0; i < output_count; i++) raw.push_back(optional_tensor(outputs[i]));
    std::shared_ptr<torch::autograd::Node> graph_node;
    if (node) {
      (*node)->materialize = materialize != 0;
      graph_node = *node;
    }
    torch::autograd::_jvp_fn_t no_jvp = [](const variable_list&, const variable_list&) -> variable_list {
      TORCH_CHECK(false, "forward-mode differentiation is not implemented for functions written in .NET");
    };
    auto wrapped = wrap(Rank<3>(), tensor_list(inputs, input_count), fixed_set, dirty_set, raw, graph_node, no_jvp);
    std::vector<at::Tensor> results;
    for (auto& output : wrapped) results.push_back(output.has_value() ? *output : at::Tensor());
    return results;
  });
}

RHO_API int rho_node_save(NodePointer* node, Handle const* tensors, int64_t count) {
  return run([&] {
    std::lock_guard<std::mutex> lock((*node)->saved_mutex);
    for (int64_t i = 0; i < count; i++) {
      if (tensors[i]) {
        bool is_output = tensors[i]->grad_fn().get() == node->get();
        (*node)->saved.emplace_back(*tensors[i], is_output);
      } else {
        (*node)->saved.emplace_back();
      }
    }
  });
}

// The node as .NET sees it during backward, when the engine keeps it alive.
RHO_API ManagedNode* rho_node_get(NodePointer* node) { return node->get(); }

RHO_API Handle* rho_node_saved(ManagedNode* node, int64_t* length) {
  return make_list(length, [&] {
    std::lock_guard<std::mutex> lock(node->saved_mutex);
    TORCH_CHECK(!node->released, torch::autograd::ERR_BACKWARD_TWICE);
    auto self = std::static_pointer_cast<torch::autograd::Node>(node->shared_from_this());
    std::vector<at::Tensor> tensors;
    for (auto& variable : node->saved) tensors.push_back(variable.unpack(self));
    return tensors;
  });
}

// The C interface between the C# stand-in of TorchSharp and libtorch 1.13 or newer.
// Operators are looked up once by schema name and called boxed through libtorch's dispatcher, so that a new operator needs
// a line of C# and none here. No C++ exception crosses the border: a call that fails returns -1 or null, and the message is
// kept per thread for rt_error.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/version.h>

#include <cstring>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {

thread_local std::string last_error;

void remember(const char* what) {
    // The first lines are libtorch's message; what follows is the C++ backtrace.
    last_error = what;
    const auto backtrace = last_error.find("\nException raised from");
    if (backtrace != std::string::npos) last_error.resize(backtrace);
}

template <class T, class F>
T guarded(T failed, F&& body) {
    try {
        return body();
    } catch (const c10::Error& error) {
        remember(error.what_without_backtrace());
    } catch (const std::exception& error) {
        remember(error.what());
    } catch (...) {
        last_error = "unknown C++ exception";
    }
    return failed;
}

enum ArgumentKind : int32_t { None, TensorArg, IntArg, DoubleArg, BoolArg, IntList, TensorList, OptionalTensorList, DeviceArg, GeneratorArg, StringArg };

struct Argument {
    int32_t kind;
    int32_t count;
    int64_t integer;
    double real;
    void* pointer;
};

c10::Device device_of(int64_t code) {
    return c10::Device(static_cast<c10::DeviceType>(code >> 8), static_cast<c10::DeviceIndex>(static_cast<int8_t>(code & 0xff)));
}

c10::IValue value_of(const Argument& a) {
    switch (a.kind) {
        case TensorArg: return *static_cast<at::Tensor*>(a.pointer);
        case IntArg: return a.integer;
        case DoubleArg: return a.real;
        case BoolArg: return a.integer != 0;
        case IntList: {
            const auto* p = static_cast<int64_t*>(a.pointer);
            return c10::IValue(std::vector<int64_t>(p, p + a.count));
        }
        case TensorList: {
            c10::List<at::Tensor> list;
            list.reserve(a.count);
            for (int i = 0; i < a.count; i++) list.push_back(*static_cast<at::Tensor**>(a.pointer)[i]);
            return list;
        }
        case OptionalTensorList: {
            c10::List<c10::optional<at::Tensor>> list;
            list.reserve(a.count);
            for (int i = 0; i < a.count; i++) {
                auto* t = static_cast<at::Tensor**>(a.pointer)[i];
                list.push_back(t ? c10::optional<at::Tensor>(*t) : c10::optional<at::Tensor>());
            }
            return list;
        }
        case DeviceArg: return device_of(a.integer);
        case GeneratorArg: return *static_cast<at::Generator*>(a.pointer);
        case StringArg: return std::string(static_cast<const char*>(a.pointer));
        default: return c10::IValue();
    }
}

at::Tensor* fresh(at::Tensor t) { return new at::Tensor(std::move(t)); }

using BackwardCallback = int32_t (*)(void* context, at::Tensor** gradients, int32_t count, at::Tensor** results, int32_t capacity);
using ReleaseCallback = void (*)(void* context);
BackwardCallback backward_callback = nullptr;
ReleaseCallback release_callback = nullptr;

// The node of a function written in C#: its backward calls back; its context lives as long as the graph.
struct ManagedNode : torch::autograd::Node {
    void* context = nullptr;
    int32_t inputs = 0;

    ~ManagedNode() override {
        if (context) release_callback(context);
    }

    torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
        std::vector<at::Tensor*> in(gradients.size()), out(inputs, nullptr);
        for (size_t i = 0; i < gradients.size(); i++) in[i] = gradients[i].defined() ? fresh(gradients[i]) : nullptr;
        const auto failed = backward_callback(context, in.data(), static_cast<int32_t>(in.size()), out.data(), inputs);
        torch::autograd::variable_list results(inputs);
        for (int i = 0; i < inputs; i++) {
            if (!out[i]) continue;
            results[i] = *out[i];
            delete out[i];
        }
        if (failed) throw std::runtime_error(last_error);
        return results;
    }

    std::string name() const override { return "ManagedFunction"; }
};

std::vector<at::Tensor> tensors_of(at::Tensor** p, int32_t n) {
    std::vector<at::Tensor> list;
    list.reserve(n);
    for (int i = 0; i < n; i++) list.push_back(p[i] ? *p[i] : at::Tensor());
    return list;
}

}  // namespace

API const char* rt_error() { return last_error.c_str(); }
API void rt_set_error(const char* message) { last_error = message; }
API const char* rt_version() { return TORCH_VERSION; }

API void* rt_find(const char* name, const char* overload) {
    return guarded<void*>(nullptr, [&]() -> void* {
        auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
        if (!handle) {
            last_error = std::string("libtorch ") + TORCH_VERSION + " has no operator " + name + "." + overload;
            return nullptr;
        }
        return new c10::OperatorHandle(*handle);
    });
}

// Calls an operator; its tensor results, and those of its lists, go to `results` in order. Returns how many, or -1.
API int32_t rt_call(void* operation, const Argument* arguments, int32_t count, at::Tensor** results, int32_t capacity) {
    return guarded<int32_t>(-1, [&] {
        torch::jit::Stack stack;
        stack.reserve(count);
        for (int i = 0; i < count; i++) stack.push_back(value_of(arguments[i]));
        static_cast<c10::OperatorHandle*>(operation)->callBoxed(&stack);
        int32_t n = 0;
        for (auto& value : stack) {
            if (value.isTensor()) {
                if (n < capacity) results[n] = fresh(std::move(value).toTensor());
                n++;
            } else if (value.isTensorList()) {
                for (const at::Tensor& t : value.toTensorVector()) {
                    if (n < capacity) results[n] = fresh(t);
                    n++;
                }
            }
        }
        return n;
    });
}

API void rt_free(at::Tensor* t) { delete t; }
API at::Tensor* rt_alias(at::Tensor* t) { return guarded<at::Tensor*>(nullptr, [&] { return fresh(*t); }); }
API int64_t rt_dim(at::Tensor* t) { return t->dim(); }
API int64_t rt_numel(at::Tensor* t) { return t->numel(); }
API int64_t rt_element_size(at::Tensor* t) { return static_cast<int64_t>(t->element_size()); }
API int8_t rt_dtype(at::Tensor* t) { return static_cast<int8_t>(t->scalar_type()); }
API int64_t rt_device(at::Tensor* t) { return (static_cast<int64_t>(t->device().type()) << 8) | (t->device().index() & 0xff); }
API void rt_sizes(at::Tensor* t, int64_t* sizes) { std::memcpy(sizes, t->sizes().data(), sizeof(int64_t) * t->dim()); }
API void rt_strides(at::Tensor* t, int64_t* strides) { std::memcpy(strides, t->strides().data(), sizeof(int64_t) * t->dim()); }
API int64_t rt_storage_offset(at::Tensor* t) { return t->storage_offset(); }
API int32_t rt_is_contiguous(at::Tensor* t) { return t->is_contiguous(); }
API void* rt_data(at::Tensor* t) { return guarded<void*>(nullptr, [&] { return t->data_ptr(); }); }
API int32_t rt_requires_grad(at::Tensor* t) { return t->requires_grad(); }
API int32_t rt_is_leaf(at::Tensor* t) { return t->is_leaf(); }
API int32_t rt_is_inference(at::Tensor* t) { return t->is_inference(); }
API int32_t rt_set_requires_grad(at::Tensor* t, int32_t on) {
    return guarded<int32_t>(-1, [&] { t->set_requires_grad(on != 0); return 0; });
}
API int32_t rt_retain_grad(at::Tensor* t) {
    return guarded<int32_t>(-1, [&] { t->retain_grad(); return 0; });
}
API at::Tensor* rt_grad(at::Tensor* t) {
    return guarded<at::Tensor*>(nullptr, [&]() -> at::Tensor* {
        last_error.clear();
        return t->grad().defined() ? fresh(t->grad()) : nullptr;
    });
}
API int32_t rt_set_grad(at::Tensor* t, at::Tensor* gradient) {
    return guarded<int32_t>(-1, [&] { t->mutable_grad() = gradient ? *gradient : at::Tensor(); return 0; });
}

// item as a double and as an integer; the caller knows the element type.
API int32_t rt_item(at::Tensor* t, double* real, int64_t* integer) {
    return guarded<int32_t>(-1, [&] {
        const auto s = t->item();
        if (s.isFloatingPoint()) *real = s.toDouble(); else *integer = s.isBoolean() ? s.toBool() : s.toLong();
        return 0;
    });
}

// A new CPU tensor with a copy of the given bytes, or uninitialised where there are none.
API at::Tensor* rt_from_bytes(const void* bytes, int64_t length, const int64_t* sizes, int32_t dim, int8_t dtype) {
    return guarded<at::Tensor*>(nullptr, [&] {
        auto t = at::empty(at::IntArrayRef(sizes, dim), at::TensorOptions().dtype(static_cast<c10::ScalarType>(dtype)));
        TORCH_CHECK(static_cast<int64_t>(t.nbytes()) == length, "a tensor of ", t.nbytes(), " bytes cannot be made of ", length, " bytes");
        if (length) std::memcpy(t.data_ptr(), bytes, length);
        return fresh(t);
    });
}

API int32_t rt_backward(at::Tensor** tensors, int32_t count, at::Tensor** gradients, int32_t retain, int32_t create, at::Tensor** inputs, int32_t input_count) {
    return guarded<int32_t>(-1, [&] {
        torch::autograd::backward(tensors_of(tensors, count), gradients ? tensors_of(gradients, count) : std::vector<at::Tensor>(), retain != 0, create != 0,
                                  tensors_of(inputs, input_count));
        return 0;
    });
}

API int32_t rt_autograd_grad(at::Tensor** outputs, int32_t count, at::Tensor** inputs, int32_t input_count, at::Tensor** gradients, int32_t retain, int32_t create,
                    int32_t allow_unused, at::Tensor** results) {
    return guarded<int32_t>(-1, [&] {
        auto list = torch::autograd::grad(tensors_of(outputs, count), tensors_of(inputs, input_count),
                                          gradients ? tensors_of(gradients, count) : std::vector<at::Tensor>(), retain != 0, create != 0, allow_unused != 0);
        for (size_t i = 0; i < list.size(); i++) results[i] = list[i].defined() ? fresh(list[i]) : nullptr;
        return 0;
    });
}

API void rt_set_callbacks(BackwardCallback backward, ReleaseCallback release) {
    backward_callback = backward;
    release_callback = release;
}

// Makes the outputs of a C# function results of one node in the graph. Returns 0 (and takes no context) where no input needs a gradient.
API int32_t rt_attach(void* context, at::Tensor** inputs, int32_t input_count, at::Tensor** outputs, int32_t output_count) {
    return guarded<int32_t>(-1, [&] {
        std::vector<at::Tensor> in = tensors_of(inputs, input_count);
        bool needed = false;
        for (auto& t : in) needed |= t.defined() && t.requires_grad();
        if (!needed || !at::GradMode::is_enabled()) return 0;
        auto node = std::shared_ptr<ManagedNode>(new ManagedNode(), torch::autograd::deleteNode);
        node->inputs = input_count;
        torch::autograd::edge_list edges;
        for (auto& t : in) edges.push_back(t.defined() ? torch::autograd::impl::gradient_edge(t) : torch::autograd::Edge());
        node->set_next_edges(std::move(edges));
        for (int i = 0; i < output_count; i++) torch::autograd::set_history(*outputs[i], node);
        node->context = context;
        return 1;
    });
}

API int32_t rt_set_grad_mode(int32_t on) {
    const auto before = at::GradMode::is_enabled();
    at::GradMode::set_enabled(on != 0);
    return before;
}
API int32_t rt_grad_mode() { return at::GradMode::is_enabled(); }
API void* rt_inference_enter(int32_t on) { return new c10::InferenceMode(on != 0); }
API void rt_inference_leave(void* guard) { delete static_cast<c10::InferenceMode*>(guard); }
API int32_t rt_inference_mode() { return c10::InferenceMode::is_enabled(); }

API int32_t rt_threads() { return at::get_num_threads(); }
API void rt_set_threads(int32_t n) { at::set_num_threads(n); }
API int32_t rt_set_interop_threads(int32_t n) {
    return guarded<int32_t>(-1, [&] { at::set_num_interop_threads(n); return 0; });
}
API int32_t rt_cuda_devices() {
    return guarded<int32_t>(0, [&]() -> int32_t { return at::hasCUDA() ? static_cast<int32_t>(at::detail::getCUDAHooks().getNumGPUs()) : 0; });
}
API int32_t rt_cuda_synchronize(int64_t index) {
    return guarded<int32_t>(-1, [&] { at::detail::getCUDAHooks().deviceSynchronize(static_cast<c10::DeviceIndex>(index)); return 0; });
}

API at::Generator* rt_generator(int64_t device, uint64_t seed) {
    return guarded<at::Generator*>(nullptr, [&] {
        const auto where = device_of(device);
        auto source = at::globalContext().defaultGenerator(where).clone();
        source.set_current_seed(seed);
        return new at::Generator(source);
    });
}
API void rt_generator_free(at::Generator* g) { delete g; }
API void rt_generator_seed(at::Generator* g, uint64_t seed) { g->set_current_seed(seed); }
API uint64_t rt_generator_initial_seed(at::Generator* g) { return g->current_seed(); }
API at::Tensor* rt_generator_state(at::Generator* g) { return guarded<at::Tensor*>(nullptr, [&] { return fresh(g->get_state()); }); }
API int32_t rt_generator_set_state(at::Generator* g, at::Tensor* state) {
    return guarded<int32_t>(-1, [&] { g->set_state(*state); return 0; });
}
API at::Generator* rt_manual_seed(int64_t seed) {
    return guarded<at::Generator*>(nullptr, [&] {
        at::manual_seed(static_cast<uint64_t>(seed));
        return new at::Generator(at::globalContext().defaultGenerator(at::kCPU));
    });
}

#include "sites.h"

#include <map>

#include "../autograd/recorder.h"
#include "quantizers/straight_through.h"

namespace stairgrad::quant {
namespace {

// Of a layer that multiplies; others have none.
nn::Arithmetic* arithmetic_of(nn::Module& module) {
  if (auto* convolution = dynamic_cast<nn::Conv2d*>(&module)) return &convolution->arithmetic;
  if (auto* linear = dynamic_cast<nn::Linear*>(&module)) return &linear->arithmetic;
  return nullptr;
}
void set_arithmetic_of(nn::Module& module, nn::Arithmetic arithmetic) {
  if (nn::Arithmetic* own = arithmetic_of(module)) *own = arithmetic;
}

// The codes of a tensor that lies on a quantizer's grid already.
Quantized codes_of(const Quantizer& quantizer, const Tensor& x) {
  StraightThroughOp op(quantizer.to_grid(), everything(1));
  op.codes = x.dtype() == DType::bf16;
  return {apply_op(op, {x}), op.grids, op.codes};
}

// While it lives, sites see what reaches them, but pass it on as it is.
class InFloats {
 public:
  explicit InFloats(nn::Model& model) : kept_(model) {
    for (const nn::NamedTap& t : model.taps()) {
      if (!t.tap->hook) continue;
      t.tap->hook = [hook = t.tap->hook](const Tensor& x) {
        hook(x);
        return Quantized{x, {}};
      };
    }
    for (const nn::NamedModule& m : model.modules())
      if (nn::Arithmetic* own = arithmetic_of(*m.module)) {
        arithmetic_.emplace_back(own, *own);
        *own = nn::Arithmetic::values;
      }
  }
  ~InFloats() {
    for (auto& [own, before] : arithmetic_) *own = before;
  }
  InFloats(const InFloats&) = delete;
  InFloats& operator=(const InFloats&) = delete;

 private:
  KeptHooks kept_;
  std::vector<std::pair<nn::Arithmetic*, nn::Arithmetic>> arithmetic_;
};

}  // namespace

// Found by running the model once: such an input shares memory with what passed a tensor tap.
std::map<std::string, std::string> readers_of_tensors(nn::Model& model) {
  const KeptHooks kept(model);
  std::map<std::string, Array> passed;
  std::map<std::string, std::string> readers;
  for (const nn::NamedTap& t : model.taps()) {
    if (t.tap->role == nn::Tap::Role::tensor)
      t.tap->hook = [&, name = t.name](const Tensor& x) {
        passed[name] = x.value();
        return Quantized{x, {}};
      };
    if (t.tap->role == nn::Tap::Role::input)
      t.tap->hook = [&, name = t.owner()](const Tensor& x) {
        for (const auto& [tensor, value] : passed)
          if (x.value().shares_memory_with(value)) readers[name] = tensor;
        return Quantized{x, {}};
      };
  }
  const nn::Evaluation evaluation(model);
  const NoGrad no_grad;
  model(Array::zeros(model.input_shape()));
  return readers;
}

std::shared_ptr<Sites> attach_sites(nn::Model& model, const Policy& policy) {
  check_policy(policy, model);
  detach_sites(model);
  const std::shared_ptr<Sites> sites(new Sites(policy));
  std::map<std::string, std::string>& on_grid = sites->readers_;
  if (policy.skip == Skip::shared) on_grid = readers_of_tensors(model);
  for (const auto& [layer, tensor] : on_grid)
    check(policy.layers.at(layer).a_bits == policy.tensors.at(tensor).bits, "[policy] layer '", layer,
          "' has a_bits ", policy.layers.at(layer).a_bits, " but reads the tensor '", tensor, "' of ",
          policy.tensors.at(tensor).bits, " bits; with skip shared they must be equal");
  std::map<std::string, int64_t> channels;
  for (const nn::NamedTensor& p : model.parameters())
    channels[p.name] = p.tensor.rank() ? p.tensor.dim(0) : 1;

  for (const nn::NamedTap& t : model.taps()) {
    if (t.tap->role == nn::Tap::Role::tensor) {
      const TensorPolicy& tensor = policy.tensors.at(t.name);
      if (tensor.bits <= 8) sites->add(t.name, *t.tap, tensor.quantizer, {.bits = tensor.bits}, 1);
      continue;
    }
    const LayerPolicy& layer = policy.layers.at(t.owner());
    const bool weight = t.tap->role == nn::Tap::Role::weight;
    const int bits = weight ? layer.w_bits : layer.a_bits;
    if (bits > 8 || (!weight && on_grid.count(t.owner()))) continue;
    const bool per_channel = weight && layer.granularity == "channel";
    sites->add(t.name, *t.tap, layer.quantizer, {.bits = bits, .weight = weight, .per_channel = per_channel},
               per_channel ? channels.at(t.name) : 1);
  }
  model.attach("sites", sites);
  return sites;
}

void detach_sites(nn::Model& model) {
  for (const nn::NamedTap& t : model.taps()) t.tap->hook = nullptr;
  for (const nn::NamedModule& m : model.modules()) {
    set_arithmetic_of(*m.module, nn::Arithmetic::values);
    if (auto* norm = dynamic_cast<nn::BatchNorm2d*>(m.module)) norm->instead = nullptr;
  }
  model.detach("sites");
}

void calibrate(nn::Model& model, const Array& images) {
  const nn::Evaluation evaluation(model);
  const InFloats in_floats(model);
  const NoGrad no_grad;
  model(images);
}

void Sites::add(const std::string& name, nn::Tap& tap, const std::string& quantizer,
                const QuantizerOptions& options, int64_t channels) {
  const auto made = make_quantizer(quantizer, options, channels);
  sites_.push_back({name, tap.role, add_module(name, made)});
  const std::string own = name.substr(name.rfind('.') + 1);
  tap.hook = [made, own](const Tensor& x) {
    const Scope scope(own);
    return (*made)(x);
  };
}

void Sites::project() {
  for (const Site& site : sites_) site.quantizer->project();
}

void Sites::set_progress(double share) {
  for (const Site& site : sites_) site.quantizer->set_progress(share);
}

void Sites::set_arithmetic(nn::Model& model, nn::Arithmetic arithmetic) {
  const bool integers = arithmetic == nn::Arithmetic::integers;
  std::map<std::string, std::shared_ptr<Quantizer>> uniform;
  for (const Site& site : sites_)
    if (site.quantizer->traits().uniform) uniform[site.name] = site.quantizer;
  std::map<std::string, nn::Tap*> taps;
  for (const nn::NamedTap& t : model.taps()) taps[t.name] = t.tap;
  for (const nn::NamedModule& m : model.modules()) {
    if (!uniform.count(m.name + ".weight")) continue;
    if (const auto input = uniform.find(m.name + ".input"); input != uniform.end()) {
      input->second->give_codes(integers);
    } else {
      const auto reader = readers_.find(m.name);
      if (reader == readers_.end() || !uniform.count(reader->second)) continue;
      nn::Tap& tap = *taps.at(m.name + ".input");
      tap.hook = nullptr;
      if (integers) tap.hook = [q = uniform.at(reader->second)](const Tensor& x) { return codes_of(*q, x); };
    }
    set_arithmetic_of(*m.module, arithmetic);
  }
}

KeptHooks::KeptHooks(nn::Model& model) {
  for (const nn::NamedTap& t : model.taps()) hooks_.emplace_back(t.tap, t.tap->hook);
}
KeptHooks::~KeptHooks() {
  for (auto& [tap, hook] : hooks_) tap->hook = std::move(hook);
}

SiteVisitor::SiteVisitor(nn::Model& model, Visit visit) : kept_(model), visit_(std::move(visit)) {
  for (const nn::NamedTap& t : model.taps()) {
    if (!t.tap->hook) continue;
    t.tap->hook = [this, t, hook = t.tap->hook](const Tensor& x) {
      const Quantized q = hook(x);
      visit_(t, x, q);
      return q;
    };
  }
}

SiteRecorder::SiteRecorder(nn::Model& model)
    : visitor_(model, [this](const nn::NamedTap& site, const Tensor&, const Quantized& q) {
        if (site.tap->role != nn::Tap::Role::weight && q.on_grid()) integers[site.name] = q.integers();
      }) {}

}  // namespace stairgrad::quant

#include "quantizer.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "../autograd/ops.h"
#include "../kernels/grid_arrays.h"
#include "../kernels/nearest.h"
#include "../kernels/simd/simd.h"
#include "../kernels/threads.h"

namespace stairgrad::quant {

Quantizer::Quantizer(const QuantizerOptions& options, int64_t channels)
    : options_(options), groups_(options.per_channel ? channels : 1), state_(add_buffer("state", {2})) {
  check(options.bits >= 1 && options.bits <= 8, "[quantizer] got ", options.bits,
        " bits, expected 1 .. 8; leave the tensor unquantized (32 in a policy) if it shall stay in floats");
  check(options.weight || !options.per_channel,
        "[quantizer] got per_channel for activations, expected it for weights; use one grid for the tensor");
  check(channels >= 1, "[quantizer] got ", channels, " channels, expected at least 1");
}

bool Quantizer::initialised() const { return state_.to_vector()[0] != 0; }
bool Quantizer::is_signed() const { return options_.weight || state_.to_vector()[1] != 0; }

void Quantizer::initialise(const Array& x) {
  check(x.size() > 0, "[quantizer] got an empty array of shape ", x.shape(), " to choose a range for");
  const std::vector<double> data = x.to_vector();
  if (!std::all_of(data.begin(), data.end(), [](double value) { return std::isfinite(value); }))
    throw numeric_error(text("[quantizer] ", name(), ": cannot choose a range for data of shape ", x.shape(),
                             " with NaN or infinity; look for a layer that diverged"));
  const bool negative = *std::min_element(data.begin(), data.end()) < 0;
  state_.assign(cast(Array::of<double>({1, negative ? 1.0 : 0.0}), state_.dtype()));
  choose(x.dtype() == DType::bf16 ? cast(x, DType::f32) : x);
}

Quantized Quantizer::operator()(const Tensor& x) {
  check(groups_ == 1 || (x.rank() > 0 && x.dim(0) == groups_), "[quantizer] ", name(), ": got the shape ",
        x.shape(), ", expected ", groups_, " slices, one for each grid");
  const Tensor src = options_.weight && x.dtype() == DType::bf16 ? cast(x, DType::f32) : x;
  if (initialised())
    observe(src.value());
  else
    initialise(src.value());
  Tensors in = {transform(src)};
  for (const Tensor& parameter : own_parameters()) in.push_back(parameter);
  return {apply(in), to_grid(), gives_codes_ && src.dtype() == DType::bf16};
}

Grids Quantizer::to_grid() const {
  Arrays parameters;
  for (const Tensor& parameter : own_parameters()) parameters.push_back(parameter.value());
  return grids(parameters);
}

void Quantizer::declare(const std::string& name, bool learned) {
  if (learned && options_.learn)
    own_.push_back({&add_parameter(name, {groups_}), nullptr});
  else
    own_.push_back({nullptr, &add_buffer(name, {groups_})});
}

Tensors Quantizer::own_parameters() const {
  Tensors all;
  for (const Own& own : own_) all.push_back(own.learned ? *own.learned : Tensor(*own.constant));
  return all;
}

std::vector<double> Quantizer::values(int parameter) const {
  return own_parameters()[static_cast<size_t>(parameter)].value().to_vector();
}

void Quantizer::set_values(int parameter, const std::vector<double>& values) {
  Array target = own_parameters()[static_cast<size_t>(parameter)].value();
  target.assign(cast(Array::of(values), target.dtype()));
}

double Quantizer::gradient_scale(const Shape& x, int levels) const {
  const std::string n = options_.settings.has("scale") ? options_.settings.choice("scale") : "image";
  if (!options_.scale_gradients || n == "none" || x.size() == 0) return 1;
  const int64_t images = n == "image" && x.rank() > 0 ? x[0] : 1, parts = options_.weight ? groups_ : images;
  return 1 / std::sqrt(static_cast<double>(x.size() / parts) * levels);
}

SettingRule gradient_scale_rule(const std::string& first) {
  std::vector<std::string> words = {"image", "batch", "none"};
  std::stable_partition(words.begin(), words.end(), [&](const std::string& word) { return word == first; });
  return SettingRule::choice("scale", words);
}

namespace {

// An op whose gradient is that of its quantizer's surrogate, scaled for the parameters.
struct SurrogateOp final : QuantizeOp {
  std::shared_ptr<const Quantizer> quantizer;
  int inputs;
  double scale;

  SurrogateOp(Grids grids, std::shared_ptr<const Quantizer> quantizer, int inputs, double scale)
      : QuantizeOp(std::move(grids)), quantizer(std::move(quantizer)), inputs(inputs), scale(scale) {}
  std::string_view name() const override { return "quantize"; }
  Tensors decompose(const Tensors& in) const override {
    Tensors wide = in;
    if (in[0].dtype() == DType::bf16) wide[0] = cast(in[0], DType::f32);
    Arrays at;
    for (const Tensor& t : wide) at.push_back(t.value());
    return {cast(quantizer->surrogate(wide, at), in[0].dtype())};
  }
  Tensors vjp(const Vjp& v) const override {
    Tensors gradients = vjp_by_decomposition(*this, v);
    for (size_t i = 1; i < gradients.size(); ++i)
      if (gradients[i].defined()) gradients[i] = gradients[i] * scale;
    return gradients;
  }
  Saved saved() const override {
    Saved all;
    for (int i = 0; i < inputs; ++i) all.inputs.push_back(i);
    return all;
  }
};

}  // namespace

Tensor Quantizer::apply(const Tensors& in) const {
  const std::shared_ptr<const Quantizer> self = weak_from_this().lock();
  check(self != nullptr, "[quantizer] a quantizer lives in a std::shared_ptr; make it with std::make_shared");
  Arrays parameters;
  for (size_t i = 1; i < in.size(); ++i) parameters.push_back(in[i].value());
  const Grids on = grids(parameters);
  check(!on.empty(), "[quantizer] ", name(), " has no grid; then it must override apply()");
  const double scale = gradient_scale(in[0].shape(), on[0].hi - on[0].lo);
  return quantize(SurrogateOp(on, self, static_cast<int>(in.size()), scale), in);
}

Arrays QuantizeOp::forward(const Arrays& in) const {
  if (codes) return {kernels::levels(in[0], grids[0], Quantized::fineness(grids[0]))};
  return {fake_quantize(in[0], grids)};
}

Array fake_quantize(const Array& x, const Grids& grids) {
  const auto slices = static_cast<int64_t>(grids.size());
  if (slices == 1) return kernels::fake_quantize(x, grids[0]);
  check(x.rank() > 0 && x.dim(0) == slices, "[fake_quantize] got ", slices, " grids for an array of shape ",
        x.shape(), ", expected one, or one for each slice of the outermost axis");
  if (x.dtype() == DType::f64) return cast(fake_quantize(cast(x, DType::f32), grids), DType::f64);
  Array result(x.shape());
  const float* from = x.data<float>();
  float* to = result.data<float>();
  const int64_t size = x.size() / slices;
  const auto loop = simd::table().grid.fake_quantize;
  parallel_for(slices, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, size)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const Grid& g = grids[static_cast<size_t>(i)];
                   loop(from + i * size, to + i * size, size, g, grid::inverse(g.scale));
                 }
               });
  return result;
}

// --- the catalogue: explicit, because static initialisers would vanish from a static library ---

QuantizerEntry affine_entry();
QuantizerEntry apot_entry();
QuantizerEntry binary_entry();
QuantizerEntry dorefa_entry();
QuantizerEntry dsq_entry();
QuantizerEntry dsq_fixed_entry();
QuantizerEntry lsq_entry();
QuantizerEntry lsq_plus_entry();
QuantizerEntry pact_entry();
QuantizerEntry ste_entry();
QuantizerEntry ternary_entry();

namespace {

std::map<std::string, QuantizerEntry>& catalogue() {
  static std::map<std::string, QuantizerEntry> entries = {
      {"affine", affine_entry()}, {"apot", apot_entry()},         {"binary", binary_entry()},
      {"dorefa", dorefa_entry()}, {"dsq", dsq_entry()},           {"dsq_fixed", dsq_fixed_entry()},
      {"lsq", lsq_entry()},       {"lsq_plus", lsq_plus_entry()}, {"pact", pact_entry()},
      {"ste", ste_entry()},       {"ternary", ternary_entry()},
  };
  return entries;
}

// The quantizer that a spec names, and its settings.
std::pair<const QuantizerEntry&, QuantizerSettings> parse(const std::string& spec) {
  const size_t colon = std::min(spec.find(':'), spec.size());
  const std::string name = spec.substr(0, colon);
  const auto found = catalogue().find(name);
  if (found != catalogue().end()) {
    const std::string given = colon < spec.size() ? spec.substr(colon + 1) : "";
    return {found->second, QuantizerSettings(name, given, found->second.settings)};
  }
  std::string known;
  for (const std::string& other : quantizer_names()) known += (known.empty() ? "" : ", ") + other;
  throw argument_error(text("[quantizer] got the name \"", name, "\", did you mean \"",
                            nearest(name, quantizer_names()), "\"? Expected one of: ", known));
}

}  // namespace

std::shared_ptr<Quantizer> make_quantizer(const std::string& spec, QuantizerOptions options,
                                          int64_t channels) {
  const auto [entry, settings] = parse(spec);
  options.settings = settings;
  return entry.make(options, channels);
}

void check_quantizer(const std::string& spec) { parse(spec); }

std::vector<std::string> quantizer_names() {
  std::vector<std::string> names;
  for (const auto& [name, entry] : catalogue()) names.push_back(name);
  return names;
}

std::string quantizer_help() {
  std::string help;
  for (const auto& [name, entry] : catalogue())
    help += text(name, ": ", entry.about, entry.about.empty() ? "" : "; ", str(entry.settings), '\n');
  return help;
}

void register_quantizer(const std::string& name, QuantizerEntry entry) {
  check(!name.empty() && name.find(':') == std::string::npos && entry.make,
        "[quantizer] register_quantizer: got the name \"", name, "\"", entry.make ? "" : " and no factory",
        ", expected a name without a colon and a factory");
  catalogue()[name] = std::move(entry);
}

}  // namespace stairgrad::quant

// Every way of using a quantizer, for laws that hold for all of them.
#pragma once

#include <doctest/doctest.h>

#include <cstring>

#include "../../kernels/random.h"
#include "../../quant/quantizer.h"

namespace stairgrad::quant {

/// The catalogue before a test adds to it.
inline const std::vector<std::string> catalogue = quantizer_names();

enum class Data { weights, signed_activations, activations };

struct Setting {
  std::string name;
  QuantizerOptions options;
  Data data;
  int64_t channels;

  std::shared_ptr<Quantizer> make() const { return make_quantizer(name, options, channels); }
  std::string str() const {
    const char* kind = data == Data::weights       ? "weights"
                       : data == Data::activations ? "activations"
                                                   : "signed";
    return text(name, ' ', options.bits, " bit ", kind, options.per_channel ? " per channel" : "");
  }
  /// Normal values; non-negative for activations after a ReLU.
  Array sample(Shape shape = {4, 3, 3, 5}, uint64_t stream = 0, DType dtype = DType::f32) const {
    Array x = random_normal(shape, Philox(11, stream), 0.7, DType::f64);
    for (int64_t i = 0; data == Data::activations && i < x.size(); ++i)
      x.data<double>()[i] = std::max(0.0, x.data<double>()[i]);
    return cast(x, dtype);
  }
};

/// Runs law(setting) for every quantizer of the catalogue, role, granularity and number of bits, and for some
/// of the settings that a name may have with few bits.
template <class Law>
void for_each_setting(const Law& law, const std::vector<int>& all_bits = {1, 2, 3, 4, 5, 6, 7, 8}) {
  std::vector<std::string> names = catalogue;
  const size_t plain = names.size();
  for (const char* spec :
       {"binary:slope=hardtanh,levels=one", "binary:slope=tanh,levels=shift,standardise=yes",
        "dsq:alpha=0.9,direct=soft,init=mse,scale=none", "dsq_fixed:range=percentile,percentile=99",
        "pact:weights=sawb,init=mse", "ste:range=kl", "ste:range=sigma,sigmas=2"})
    names.push_back(spec);
  for (size_t n = 0; n < names.size(); ++n)
    for (const int bits : all_bits)
      for (const Data data : {Data::weights, Data::signed_activations, Data::activations})
        for (const bool per_channel : {false, true}) {
          const std::string& name = names[n];
          if ((per_channel && data != Data::weights) || (n >= plain && bits > 2)) continue;
          QuantizerOptions options{.bits = bits, .weight = data == Data::weights, .per_channel = per_channel};
          const Setting setting{name, options, data, 4};
          INFO(setting.str());
          CHECK_NOTHROW(law(setting));
        }
}

inline bool same_bits(const Array& a, const Array& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}
inline bool all_finite(const Array& x) {
  for (const double value : x.to_vector())
    if (!std::isfinite(value)) return false;
  return true;
}
/// Largest difference, relative to the largest value.
inline double difference(const Array& a, const Array& b) {
  const std::vector<double> u = a.to_vector(), v = b.to_vector();
  double most = 0, scale = 1e-300;
  for (size_t i = 0; i < u.size(); ++i) {
    most = std::max(most, std::abs(u[i] - v[i]));
    scale = std::max(scale, std::abs(v[i]));
  }
  return most / scale;
}

}  // namespace stairgrad::quant

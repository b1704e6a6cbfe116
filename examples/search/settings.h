// The options of search.
#pragma once

#include "../../quant/search/risk.h"
#include "../common/quantization.h"
#include "../common/task.h"

namespace stairgrad::examples {

struct Settings {
  CommonOptions common;
  TaskOptions task;
  TrainingOptions training{.epochs = 8, .lr = 0.02, .weight_decay = 1e-4, .warmup = 0.5};
  QuantizationOptions policy{.quantizer = "lsq:init=mse"};  // how the policy that comes out quantizes
  std::string method = "gmpq", bops, w_bits = "2,3,4,6", a_bits = "2,3,4,6", importance = "softmax", teachers,
              references, describe, exponent = "linear", explain = "own";
  bool scratch = false, search_ends = false, keep_empty = false;
  double importance_lr = 10, temperature = 1, last_temperature = 0.1, tolerance = 3, stiffness = 5,
         rate = 0.02, attribution = 40, share = 1;
  int curve_points = 7, probes = 8;
  int64_t figures = 500, hessian_images = 64;
  quant::RiskOptions risk, r_gmpq = quant::r_gmpq({});  // the second: what --method r-gmpq adds
  bool has_dataset = false;                             // --dataset was given; --describe has no default
  Value values;

  /// Throws argument_error for options that miss, exclude each other or have no meaning here.
  void parse(int argc, char** argv);

  bool trains() const { return method == "gmpq" || method == "r-gmpq" || method == "edmips"; }
  /// As reports call it.
  std::string title() const { return method == "r-gmpq" ? "R-GMPQ, our reading" : method; }

 private:
  void check_search() const;
};

}  // namespace stairgrad::examples

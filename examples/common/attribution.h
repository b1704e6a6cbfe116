// Where a quantized network looks, beside the float network it comes from.
#pragma once

#include "../../nn/attribution.h"
#include "report.h"
#include "task.h"
#include "value.h"

namespace stairgrad::examples {

/// Figures over some pictures; maps are Grad-CAM of each network's own top class at its last feature map.
struct AttributionFigures {
  int64_t images = 0;
  double spearman = 0;                    ///< mean rank correlation of the two maps
  double rank_error = 0;                  ///< mean distance of ranks, of 1
  double entropy = 0, float_entropy = 0;  ///< nats
  double empty = 0;                       ///< percent of images where either map has nothing positive
  double input_gradient_mismatch = 0;     ///< nn::input_gradient_mismatch(), on at most 200 pictures

  void record(Value& result) const;
  std::string str() const;
};

/// Of `count` test pictures, evenly spread.
AttributionFigures measure_attribution(nn::Model& quantized, nn::Model& in_floats, const Task& task,
                                       int64_t count);

/// Mean rank error of the maps of a network, of its own top classes, against those of `reference`, on `count`
/// test pictures, evenly spread (R-GMPQ, appendix I).
double rank_error_to(const nn::Explainer& reference, nn::Model& quantized, const Task& task, int64_t count);

/// Test pictures, where the float network looks, and where the quantized one: rows of a page, and a sheet for
/// a file.
Array show_attribution(Report& report, nn::Model& quantized, nn::Model& in_floats, const Task& task,
                       int64_t count = 10);

}  // namespace stairgrad::examples

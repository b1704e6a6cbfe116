// An integer model for people: what it is, and what quantization does to it layer by layer.
#pragma once

#include <vector>

#include "../../quant/explain.h"
#include "report.h"
#include "value.h"

namespace stairgrad::examples {

/// Name, operation, shapes, bits, scales, MACs, BOPs and bytes of each layer.
Table layer_table(const quant::integer::Model& model);
/// Sizes, bits, classes, preprocessing, how many layers are computed more than once, and which values are
/// floats and why.
Table model_table(const quant::integer::Model& model, const std::string& path);

/// Distances to the float network, saturated shares, differing codes and times.
Table explanation_table(const std::vector<quant::LayerExplanation>& layers);
/// The same as JSON: SQNR is "exact" where there is no error, and null where the float network has no such
/// tensor.
Value explanation_value(const std::vector<quant::LayerExplanation>& layers);

/// And as a section of a page.
void add_explanation(Report& report, const std::vector<quant::LayerExplanation>& layers, int64_t images);

}  // namespace stairgrad::examples

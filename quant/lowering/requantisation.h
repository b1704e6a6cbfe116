// The arithmetic of an integer layer: weights as integers, and everything behind them as one affine map.
#pragma once

#include "../integer/model.h"
#include "chain.h"

namespace stairgrad::quant::lowering {

/// The convolution that computes `chain` from `from` into `to`, with `skip` for its residual add if it has
/// one; the caller says where they are. Throws argument_error if they do not fit.
integer::Convolution convolution(const Graph& graph, const Chain& chain, const integer::Value& from,
                                 const integer::Value& to, const integer::Value* skip);

}  // namespace stairgrad::quant::lowering

// What follows a layer: read from a trace of the float network.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "../../nn/layers.h"
#include "../../nn/model.h"

namespace stairgrad::quant {

/// A layer and what the zoo puts behind it.
struct LayerChain {
  std::string layer;   ///< path
  std::string norm;    ///< path of its batch norm; empty if it is folded or there is none
  std::string reader;  ///< the one layer that reads its activation and nothing else does; may be empty
  double high = 0;     ///< upper limit of the activation in between, infinite for ReLU; 0: none
};
/// Of every convolution and fully connected layer, in the order in which they run. The model must be without
/// sites.
std::vector<LayerChain> layer_chains(nn::Model& model);

/// The module at a path, which must be of that type.
template <class M>
M& module_at(nn::Model& model, const std::string& path) {
  for (const nn::NamedModule& m : model.modules())
    if (m.name == path)
      if (M* found = dynamic_cast<M*>(m.module)) return *found;
  throw argument_error(text("[ptq] the model has no such layer at ", path));
}

}  // namespace stairgrad::quant

// The zoo as a table.
#pragma once

#include "table.h"

namespace stairgrad::examples {

/// A row a network, at its usual size: input, parameters, MACs and, unless `policy` is empty, BOPs. The
/// policy is a file, for the networks whose layers it names ("-" for others), or uniform bits such as "w4a4",
/// with 8 bits for the first and the last layer. Throws argument_error for a policy that fits no network.
Table model_list(const std::string& policy = "");

}  // namespace stairgrad::examples

// Policies without a search: what a searched one is compared with.
#pragma once

#include "space.h"

namespace stairgrad::quant {

/// The same bits in all layers: of the pairs of candidates within the budget the one with the most BOPs,
/// among equals the one whose bits differ least. Throws argument_error if the budget allows none.
BitChoice uniform_choice(const SearchSpace& space, int64_t budget);

/// Bits at random with low <= BOPs <= high. Each site draws its bits b with probability ~ exp(theta b), the
/// most random way to meet the middle of that range on average, until a draw lies in it. Throws
/// argument_error if 100,000 draws do not.
BitChoice random_choice(const SearchSpace& space, int64_t low, int64_t high, uint64_t seed);

}  // namespace stairgrad::quant

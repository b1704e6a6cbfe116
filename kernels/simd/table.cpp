// All loops of one instruction set.
#include "simd.h"

namespace stairgrad::simd::STAIRGRAD_ISA {

// Each source of loops enters its own.
void enter_depthwise(Table&);
void enter_grid(Table&);
void enter_map(Table&);
void enter_norm(Table&);
void enter_optimiser(Table&);
void enter_pool(Table&);
void enter_reduce(Table&);

void fill(Table& table);
void fill(Table& table) {
  for (const auto enter :
       {enter_depthwise, enter_grid, enter_map, enter_norm, enter_optimiser, enter_pool, enter_reduce})
    enter(table);
}

}  // namespace stairgrad::simd::STAIRGRAD_ISA

// Loops over codes, against their definitions.
#include "kernels/random.h"
#include "kernels/simd/simd.h"

#include "kernel_test.h"

using namespace stairgrad;

TEST_CASE("sums and squares of codes by channel are exact, whatever the number of channels") {
  for_every_isa([] {
    for (const int64_t channels : {1, 3, 4, 7, 8, 15, 16, 17, 32, 45})
      for (const int64_t pixels : {int64_t{1}, int64_t{2}, int64_t{65}, int64_t{1} << 15}) {
        CAPTURE(channels);
        CAPTURE(pixels);
        std::vector<uint8_t> codes(static_cast<size_t>(channels * pixels), 255);  // the largest there can be
        const Philox rng(1);
        for (size_t i = 0; pixels < 1 << 15 && i < codes.size(); ++i)
          codes[i] = static_cast<uint8_t>(rng.below(i, 256));
        std::vector<int32_t> sum(static_cast<size_t>(channels)), squares = sum, own_sum = sum,
                                                                 own_squares = sum;
        for (size_t i = 0; i < codes.size(); ++i) {
          const size_t c = i % static_cast<size_t>(channels);
          own_sum[c] += codes[i];
          own_squares[c] += codes[i] * codes[i];
        }
        simd::integer_table().codes.moments(codes.data(), pixels, channels, sum.data(), squares.data());
        CHECK(sum == own_sum);
        CHECK(squares == own_squares);
      }
  });
}

// How threads wait for each other.
#pragma once

namespace stairgrad::examples {

/// Makes the threads of libgomp (and so of oneDNN) sleep after some microseconds of waiting, by starting the
/// program again with GOMP_SPINCOUNT set; libgomp reads it before main(). Its default is to spin for
/// milliseconds: 1-2 % faster alone on the machine, but 3 to 10 times slower beside one other busy process.
/// Does nothing if the user has set GOMP_SPINCOUNT or OMP_WAIT_POLICY.
void limit_spinning();

}  // namespace stairgrad::examples

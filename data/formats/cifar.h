// The binary versions of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html): records of one
// or two label bytes, then 3072 bytes of a 32 x 32 image as planes of red, green and blue.
#pragma once

#include "../../kernels/array.h"
#include "file.h"

namespace stairgrad::data {

struct CifarRecords {
  Array images;                        ///< u8 (n, 32, 32, 3)
  std::vector<int32_t> labels;         ///< 0..9, or the fine label 0..99
  std::vector<int32_t> coarse_labels;  ///< CIFAR-100: 0..19
};

/// All records of a file of CIFAR-10 or CIFAR-100 (`classes` = 10 or 100). Throws format_error for a size
/// that is not a whole number of records, for an empty file, and for a label out of range, naming the record.
CifarRecords read_cifar(const std::string& path, int classes);
CifarRecords parse_cifar(ByteView bytes, const std::string& path, int classes);

}  // namespace stairgrad::data

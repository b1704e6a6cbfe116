// PyTorch checkpoints (.pth, .pt, .th), read without Python and without executing anything.
#pragma once

#include "safetensors.h"

namespace stairgrad::data {

/// Every tensor in a file of torch.save, in its zip or its older legacy form. Nested names are joined with
/// dots:
/// {"state_dict": {"fc.bias": ...}} gives "state_dict.fc.bias". Numbers and strings become metadata. Values
/// and order of axes (convolution weights are oc, ic, kh, kw) stay as stored; half precision becomes f32,
/// int64 becomes s32 if all values fit. Throws format_error for everything that is damaged, or that is not
/// tensors in lists and dicts.
SafeTensors load_pth(const std::string& path);
SafeTensors parse_pth(ByteView bytes, const std::string& path);

}  // namespace stairgrad::data

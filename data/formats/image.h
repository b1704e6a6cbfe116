// PNG and JPEG pictures.
#pragma once

#include "../../kernels/array.h"
#include "file.h"

namespace stairgrad::data {

/// Bounds on a picture that is decoded; checked before memory is spent.
struct ImageLimits {
  int64_t edge = 16384;
  int64_t pixels = int64_t{64} << 20;
  uint64_t file_bytes = uint64_t{256} << 20;
};

/// A PNG or JPEG file as u8 (h, w, 3), red, green, blue. Grey is repeated in all channels, palettes are
/// expanded, alpha is dropped, 16 bits keep their high byte, EXIF rotation is ignored, of an animation the
/// still picture is taken; PNG checksums are verified. Throws format_error for anything else and for
/// truncated files, a JPEG whose coded data end too early among them.
Array read_image(const std::string& path, const ImageLimits& limits = {});
Array decode_image(ByteView bytes, const std::string& path, const ImageLimits& limits = {});

/// The PNG file of u8 (h, w, c) with c = 1 (grey), 3 (red, green, blue) or 4 (and alpha).
Bytes encode_png(const Array& image);
void write_png(const std::string& path, const Array& image);

/// Base64 (RFC 4648), to embed pictures in HTML: "data:image/png;base64," + base64(encode_png(image)).
std::string base64(ByteView bytes);

}  // namespace stairgrad::data

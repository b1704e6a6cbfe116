#include "nearest.h"

#include <algorithm>
#include <numeric>

namespace stairgrad {
namespace {

size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace

std::string nearest(const std::string& name, const std::vector<std::string>& known, size_t furthest) {
  std::string best;
  size_t least = furthest;
  for (const std::string& candidate : known) {
    const size_t changes = distance(name, candidate);
    if (changes > least || (changes == least && !best.empty())) continue;
    best = candidate;
    least = changes;
  }
  return best;
}

}  // namespace stairgrad

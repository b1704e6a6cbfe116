// Charts as inline SVG. Colours and text come from the style sheet of the report, light or dark.
#pragma once

#include <string>
#include <vector>

namespace stairgrad::examples {

struct Curve {
  std::string name;
  std::vector<double> x, y;
};

/// Lines over a common pair of axes, with round ticks and, if there are several, a legend.
std::string line_chart(const std::string& x_label, const std::string& y_label,
                       const std::vector<Curve>& curves);

struct BarRow {
  std::string label;
  std::vector<double> values;  ///< one a series; NaN leaves a gap
};

/// Horizontal bars from zero, one group a row, the value at the end of each.
std::string bar_chart(const std::vector<std::string>& series, const std::vector<BarRow>& rows);

}  // namespace stairgrad::examples

#include "chart.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "table.h"

namespace stairgrad::examples {

namespace {

constexpr int colours = 4;  // classes s0 .. s3 of the style sheet

std::string number(double x) {
  std::ostringstream out;
  out.precision(6);
  out << x;
  return out.str();
}

struct Axis {
  double low, high, step;

  /// Round steps over the values; the ends are round as well unless `tight`.
  static Axis over(double low, double high, bool tight) {
    if (!(low <= high)) low = 0, high = 1;
    if (low == high) low -= 0.5, high += 0.5;
    const double rough = (high - low) / 6;
    const double power = std::pow(10, std::floor(std::log10(rough)));
    double step = 10 * power;
    for (const double factor : {5, 2, 1}) {
      if (factor * power >= rough) step = factor * power;
    }
    return tight ? Axis{low, high, step}
                 : Axis{std::floor(low / step) * step, std::ceil(high / step) * step, step};
  }
  double share(double x) const { return (x - low) / (high - low); }
  std::vector<double> ticks() const {
    std::vector<double> ticks;
    const auto last = std::llround(std::floor(high / step + 1e-9));
    for (auto i = std::llround(std::ceil(low / step - 1e-9)); i <= last; ++i)
      ticks.push_back(static_cast<double>(i) * step);
    return ticks;
  }
};

std::string legend(const std::vector<std::string>& names) {
  std::string drawn = "<p class=\"legend\">";
  for (size_t i = 0; i < names.size(); ++i) {
    drawn +=
        "<span><i class=\"b" + std::to_string(i % colours) + "\"></i>" + escape_html(names[i]) + "</span>";
  }
  return drawn + "</p>\n";
}

}  // namespace

std::string line_chart(const std::string& x_label, const std::string& y_label,
                       const std::vector<Curve>& curves) {
  constexpr double width = 560, height = 280, left = 56, right = 16, top = 22, bottom = 40;
  const double infinity = std::numeric_limits<double>::infinity();
  double x_low = infinity, x_high = -infinity, y_low = infinity, y_high = -infinity;
  for (const Curve& curve : curves) {
    for (size_t i = 0; i < curve.x.size(); ++i) {
      x_low = std::min(x_low, curve.x[i]);
      x_high = std::max(x_high, curve.x[i]);
      y_low = std::min(y_low, curve.y[i]);
      y_high = std::max(y_high, curve.y[i]);
    }
  }
  const Axis x_axis = Axis::over(x_low, x_high, true), y_axis = Axis::over(y_low, y_high, false);
  const auto at_x = [&](double x) { return left + x_axis.share(x) * (width - left - right); };
  const auto at_y = [&](double y) { return height - bottom - y_axis.share(y) * (height - top - bottom); };

  std::ostringstream svg;
  svg.precision(5);
  svg << "<svg viewBox=\"0 0 " << width << " " << height << "\" role=\"img\">\n";
  for (const double tick : y_axis.ticks()) {
    const double y = at_y(tick);
    svg << "<line class=\"grid\" x1=\"" << left << "\" x2=\"" << width - right << "\" y1=\"" << y
        << "\" y2=\"" << y << "\"/><text class=\"end\" x=\"" << left - 6 << "\" y=\"" << y + 4 << "\">"
        << number(tick) << "</text>\n";
  }
  for (const double tick : x_axis.ticks()) {
    svg << "<text class=\"middle\" x=\"" << at_x(tick) << "\" y=\"" << height - bottom + 17 << "\">"
        << number(tick) << "</text>\n";
  }
  svg << "<text class=\"middle label\" x=\"" << (left + width - right) / 2 << "\" y=\"" << height - 6 << "\">"
      << escape_html(x_label) << "</text>\n"
      << "<text class=\"label\" x=\"4\" y=\"12\">" << escape_html(y_label) << "</text>\n";

  std::vector<std::string> names;
  for (size_t c = 0; c < curves.size(); ++c) {
    const Curve& curve = curves[c];
    names.push_back(curve.name);
    svg << "<polyline class=\"s" << c % colours << "\" points=\"";
    for (size_t i = 0; i < curve.x.size(); ++i) svg << at_x(curve.x[i]) << "," << at_y(curve.y[i]) << " ";
    svg << "\"/>\n";
    if (curve.x.size() > 60) continue;
    for (size_t i = 0; i < curve.x.size(); ++i) {
      svg << "<circle class=\"f" << c % colours << "\" r=\"3\" cx=\"" << at_x(curve.x[i]) << "\" cy=\""
          << at_y(curve.y[i]) << "\"><title>" << escape_html(curve.name) << ": " << number(curve.y[i])
          << " at " << number(curve.x[i]) << "</title></circle>\n";
    }
  }
  svg << "</svg>\n";
  return (curves.size() > 1 ? legend(names) : "") + svg.str();
}

std::string bar_chart(const std::vector<std::string>& series, const std::vector<BarRow>& rows) {
  constexpr double width = 640, left = 210, right = 44, bar = 9, gap = 8;
  double high = 0;
  for (const BarRow& row : rows) {
    for (const double value : row.values) high = std::max(high, value);
  }
  const double group = bar * static_cast<double>(series.size()) + gap;
  std::ostringstream svg;
  svg.precision(5);
  svg << "<svg viewBox=\"0 0 " << width << " " << group * static_cast<double>(rows.size())
      << "\" role=\"img\">\n";
  for (size_t r = 0; r < rows.size(); ++r) {
    const double top = group * static_cast<double>(r);
    svg << "<text class=\"end\" x=\"" << left - 8 << "\" y=\"" << top + (group - gap) / 2 + 4 << "\">"
        << escape_html(rows[r].label) << "</text>\n";
    for (size_t s = 0; s < rows[r].values.size(); ++s) {
      const double value = rows[r].values[s], y = top + bar * static_cast<double>(s);
      if (std::isnan(value)) continue;
      const double length = high > 0 ? value / high * (width - left - right) : 0;
      svg << "<rect class=\"f" << s % colours << "\" x=\"" << left << "\" y=\"" << y << "\" width=\""
          << length << "\" height=\"" << bar - 1 << "\"/><text class=\"small\" x=\"" << left + length + 4
          << "\" y=\"" << y + bar - 1 << "\">" << number(value) << "</text>\n";
    }
  }
  svg << "</svg>\n";
  return (series.size() > 1 ? legend(series) : "") + svg.str();
}

}  // namespace stairgrad::examples

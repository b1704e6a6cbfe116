// report.html: one self-contained page that shows what a run did.
#pragma once

#include <string>
#include <vector>

#include "../../kernels/array.h"
#include "chart.h"
#include "table.h"

namespace stairgrad::examples {

struct Picture {
  Array image;  ///< u8 (h, w, c), c = 1, 3 or 4
  std::string caption;
};

/// A page that grows from top to bottom. It needs no network and follows the reader's light or dark setting.
class Report {
 public:
  Report(std::string title, std::string subtitle);

  void section(const std::string& title);
  void paragraph(const std::string& text);
  void table(const Table& table);
  void curves(const std::string& title, const std::string& x_label, const std::string& y_label,
              const std::vector<Curve>& curves);
  void bars(const std::string& title, const std::vector<std::string>& series,
            const std::vector<BarRow>& rows);
  /// Pictures side by side, `width` points wide each; small ones are enlarged without blur.
  void pictures(const std::string& title, const std::vector<Picture>& pictures, int width = 96);

  std::string html() const;
  /// Writes the page, whole or not at all.
  void save(const std::string& path) const;

 private:
  std::string title_, subtitle_, body_;
};

}  // namespace stairgrad::examples

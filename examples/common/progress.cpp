#include "progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "table.h"

namespace stairgrad::examples {

namespace {

constexpr int bar_width = 24;
constexpr double bar_interval = 0.1, line_interval = 5;  // seconds
constexpr double much_waiting = 0.2;                     // share of the time

std::string bar(double share) {
  static const char* const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int filled = static_cast<int>(std::clamp(share, 0.0, 1.0) * bar_width * 8);
  std::string drawn;
  for (int i = 0; i < filled / 8; ++i) drawn += "█";
  drawn += eighths[filled % 8];
  const int used = filled / 8 + (filled % 8 > 0);
  return "│" + drawn + std::string(static_cast<size_t>(bar_width - used), ' ') + "│";
}

}  // namespace

Progress::Progress(std::string phase, int64_t total, std::string unit, int64_t done)
    : phase_(std::move(phase)),
      unit_(std::move(unit)),
      total_(total),
      done_(done),
      first_(done),
      bar_(isatty(STDOUT_FILENO)) {}

Progress::~Progress() {
  if (open_) std::cout << "\n" << std::flush;
}

double Progress::items_per_second() const {
  return static_cast<double>(done_ - first_) / std::max(watch_.seconds(), 1e-9);
}

void Progress::advance(int64_t items, const std::string& note) {
  done_ += items;
  if (!note.empty()) note_ = note;
  const double now = watch_.seconds();
  const bool finished = bar_ && done_ == total_;
  if (!finished && now - shown_ < (bar_ ? bar_interval : line_interval)) return;
  shown_ = now;
  show();
}

void Progress::show() {
  const double share = total_ > 0 ? static_cast<double>(done_) / static_cast<double>(total_) : 1;
  const double rate = items_per_second();
  std::string status = count(std::llround(rate)) + " " + unit_ + "/s";
  if (done_ < total_ && rate > 0)
    status += ", " + duration(static_cast<double>(total_ - done_) / rate) + " left";
  if (!note_.empty()) status += ", " + note_;
  const double waiting = waited_ / std::max(watch_.seconds(), 1e-9);
  if (waiting > much_waiting) status += ", waiting for data " + percent(100 * waiting, 0) + " of the time";
  if (bar_) {
    std::cout << "\r\033[K" << phase_ << " " << bar(share) << " " << percent(100 * share, 0) << "  "
              << status;
    open_ = true;
  } else {
    std::cout << phase_ << ": " << percent(100 * share, 0) << ", " << status << "\n";
  }
  std::cout << std::flush;
}

void Progress::line(const std::string& text) {
  if (open_) std::cout << "\r\033[K";
  open_ = false;
  std::cout << text << "\n" << std::flush;
}

}  // namespace stairgrad::examples

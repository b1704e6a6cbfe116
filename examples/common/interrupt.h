// Ctrl-C that stops a program cleanly.
#pragma once

namespace stairgrad::examples {

/// Thrown by Interrupt::stop_here(); run_program() turns it into exit code 130.
struct Interrupted {};

/// While one exists, the first Ctrl-C (or SIGTERM) is only noted, so that the program can write a checkpoint
/// and stop; a second one ends the program at once.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool requested() const;
  /// Throws Interrupted if a stop was asked for: call it where everything needed to resume has been written.
  void stop_here() const {
    if (requested()) throw Interrupted{};
  }
};

}  // namespace stairgrad::examples

#include "interrupt.h"

#include <csignal>

namespace stairgrad::examples {

namespace {

volatile std::sig_atomic_t caught = 0;

void note(int signal) {
  caught = 1;
  std::signal(signal, SIG_DFL);  // the next one kills
}

}  // namespace

Interrupt::Interrupt() {
  caught = 0;
  std::signal(SIGINT, note);
  std::signal(SIGTERM, note);
}

Interrupt::~Interrupt() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

bool Interrupt::requested() const { return caught != 0; }

}  // namespace stairgrad::examples

// STAIRGRAD_VERBOSE=dispatch: which kernel ran for which shapes, and why.
#pragma once

#include <string>

namespace stairgrad::kernels {

/// True when the environment variable STAIRGRAD_VERBOSE holds the word "dispatch".
bool dispatch_is_verbose();

/// Prints "[dispatch] operation: kernel (reason)" to stderr, once for each distinct operation. Ask
/// dispatch_is_verbose() first, so that nobody else pays for the text.
void report_dispatch(const std::string& operation, const std::string& kernel, const std::string& reason);

}  // namespace stairgrad::kernels

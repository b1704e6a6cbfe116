#include "children.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>

#include "../../kernels/error.h"

namespace stairgrad::examples {

Children::~Children() {
  ask_to_stop();
  while (running_ > 0) reap(0);
}

void Children::ask_to_stop() {
  if (std::exchange(asked_, true)) return;  // a second request would end them at once
  for (const int process : processes_)
    if (process > 0) kill(process, SIGTERM);
}

void Children::start(const std::vector<std::string>& words, const std::string& log) {
  std::filesystem::create_directories(std::filesystem::path(log).parent_path());
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const auto refuse = [&] {
    throw unavailable_error(text(words[0], ": cannot be started: ", std::strerror(errno)));
  };
  if (access(words[0].c_str(), X_OK) != 0) refuse();
  const int output = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (output < 0) refuse();
  const pid_t parent = getpid(), process = fork();
  if (process == 0) {
    setpgid(0, 0);                     // Ctrl-C on the terminal is for the parent
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // the parent may be killed, even before this
    if (getppid() != parent) _exit(127);
    dup2(output, 1);
    dup2(output, 2);
    execv(words[0].c_str(), arguments.data());
    _exit(127);
  }
  close(output);
  if (process < 0) refuse();
  processes_.push_back(process);
  ++running_;
}

std::optional<Children::Ended> Children::reap(int options) {
  int status = 0;
  const pid_t process = waitpid(-1, &status, options);
  const auto found = std::ranges::find(processes_, process);
  if (process <= 0 || found == processes_.end()) return {};
  *found = 0;
  --running_;
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return Ended{static_cast<size_t>(found - processes_.begin()), code};
}

Children::Ended Children::wait(const Interrupt& interrupt) {
  check(running_ > 0, "[children] got wait() with nothing to wait for");
  for (;;) {
    if (interrupt.requested()) ask_to_stop();
    if (const auto ended = reap(WNOHANG)) return *ended;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace stairgrad::examples

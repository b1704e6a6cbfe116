// Reading whole files, writing them atomically, bounds of the Reader.
#include "data/formats/file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>

#include "kernels/random.h"
#include "skip.h"
#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;

TEST_CASE("read_file returns the bytes of a regular file and refuses everything else") {
  const TemporaryFolder folder;
  CHECK(read_file(folder.file("three", "abc")) == bytes_of("abc"));
  CHECK(read_file(folder.file("empty", "")).empty());
  CHECK(read_file(folder.file("n\xff\xfe.bin", "x")) == bytes_of("x"));

  CHECK(has(refusal([&] { read_file(folder / "absent"); }), "cannot be opened"));
  CHECK(has(refusal([&] { read_file(folder.path()); }), "this is a folder"));
  CHECK(has(refusal([&] { read_file(folder.file("big", "0123456789"), 9); }), "10 bytes, the limit is 9"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(has(refusal([&] { read_file(folder / "pipe"); }), "expected a regular file"));
  if (::geteuid() != 0) {
    ::chmod(folder.file("secret", "x").c_str(), 0);
    CHECK(has(refusal([&] { read_file(folder / "secret"); }), "cannot be opened"));
  }
}

TEST_CASE("read_file: a file that grows or shrinks while it is read") {
  // Files of the system that hold more, or less, than the size they state: what a reader meets who is
  // overtaken.
  const auto check = [](const std::string& path, const char* message) {
    if (std::filesystem::exists(path))
      CHECK(has(refusal([&] { read_file(path); }), message));
    else
      skip("there is no " + path);
  };
  check("/proc/self/status", "the file grew while it was read");
  check("/sys/devices/system/cpu/online", "the file shrank while it was read");
}

TEST_CASE("atomic_write replaces the file and leaves nothing beside it") {
  const TemporaryFolder folder;
  atomic_write(folder / "f", "old");
  atomic_write(folder / "f", "newer");
  CHECK(read_file(folder / "f") == bytes_of("newer"));
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  CHECK((static_cast<mode_t>(std::filesystem::status(folder / "f").permissions()) & 0777) == (0666 & ~mask));
}

TEST_CASE("atomic_write into a folder that is missing, a file, or read-only says so and keeps the old file") {
  const TemporaryFolder folder;
  folder.file("plain", "x");
  CHECK_THROWS_AS(atomic_write(folder / "absent/f", "x"), unavailable_error);
  CHECK_THROWS_AS(atomic_write(folder / "plain/f", "x"), unavailable_error);
  std::filesystem::create_directory(folder / "sub");
  CHECK_THROWS_AS(atomic_write(folder / "sub", "x"), unavailable_error);
  CHECK(std::filesystem::is_directory(folder / "sub"));
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 2);
  CHECK_THROWS_WITH(atomic_write("/proc/stairgrad", "x"), doctest::Contains("choose a folder"));
}

TEST_CASE("kill -9 while a file is written, 200 times: the old or the new file is there, whole") {
  const TemporaryFolder folder;
  const std::string path = folder / "checkpoint";
  constexpr size_t size = 300'000;
  // The moments of the kills spread over the time that three writes take on this disk.
  const auto begin = std::chrono::steady_clock::now();
  atomic_write(path, Bytes(size, 0));
  const std::chrono::duration<double, std::micro> one_write = std::chrono::steady_clock::now() - begin;
  const auto window = static_cast<uint64_t>(std::clamp(3 * one_write.count(), 1000.0, 500'000.0));
  const Philox rng(11);
  int replaced = 0;
  for (uint64_t round = 0; round < 200; ++round) {
    const uint8_t before = read_file(path)[0];
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0)  // writes generation after generation until it is killed
      for (auto generation = static_cast<uint8_t>(before + 1);; ++generation)
        atomic_write(path, Bytes(size, generation));
    ::usleep(static_cast<useconds_t>(rng.below(round, window)));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const Bytes content = read_file(path);
    REQUIRE(content.size() == size);
    REQUIRE(std::count(content.begin(), content.end(), content[0]) == static_cast<ptrdiff_t>(size));
    replaced += content[0] != before;
  }
  CHECK(replaced > 0);
}

TEST_CASE("hint recognises what people save by mistake") {
  CHECK(has(hint(bytes_of("version https://git-lfs.github.com/spec/v1\n")), "git lfs pull"));
  CHECK(has(hint(bytes_of("\x1f\x8b\x08")), "unpack it first"));
  CHECK(has(hint(bytes_of("\n<!DOCTYPE HTML><title>404")), "HTML page"));
  CHECK(has(hint(bytes_of("<HTML><body>")), "HTML page"));
  CHECK(has(hint(bytes_of("\x80\x02}q")), "pickle"));
  CHECK(has(hint(bytes_of("PK\x03\x04")), "zip"));
  CHECK(has(hint({}), "empty"));
  CHECK(has(hint(Bytes(257, 0) + bytes_of("ustar  ")), "tar"));
  CHECK(hint(bytes_of("plain words")) == "");
}

TEST_CASE("Reader reads both byte orders and never leaves its bytes") {
  const Bytes bytes = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  Reader reader("f", bytes);
  CHECK(reader.u16_be("a") == 0x0102);
  CHECK(reader.u16_le("a") == 0x0403);
  reader.seek(0);
  CHECK(reader.u32_be("a") == 0x01020304u);
  reader.seek(0);
  CHECK(reader.u32_le("a") == 0x04030201u);
  reader.seek(0);
  CHECK(reader.u64_le("a") == 0x0807060504030201u);
  CHECK(reader.left() == 1);
  CHECK(
      has(refusal([&] { reader.u16_be("the tail"); }), "f (byte 8): the tail needs 2 bytes, but 1 are left"));
  CHECK(has(refusal([&] { reader.take(~uint64_t{0}, "all"); }), "byte 8"));
  CHECK(has(refusal([&] { reader.seek(10); }), "behind the end"));
}

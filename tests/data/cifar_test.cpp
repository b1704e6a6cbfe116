// CIFAR binary files.
#include "data/formats/cifar.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;

namespace {

/// A record whose red, green and blue planes begin at 1, 2 and 3.
Bytes record(std::initializer_list<uint8_t> labels) {
  Bytes bytes = labels;
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < 1024; ++i) bytes.push_back(static_cast<uint8_t>(1 + c + i));
  return bytes;
}

std::string cifar_refusal(const Bytes& bytes, int classes) {
  return refusal([&] { parse_cifar(bytes, "f", classes); });
}

}  // namespace

TEST_CASE("CIFAR: planes become pixels, labels are kept") {
  const CifarRecords ten = parse_cifar(record({7}) + record({0}), "f", 10);
  CHECK(ten.images.shape() == Shape{2, 32, 32, 3});
  CHECK(ten.labels == std::vector<int32_t>{7, 0});
  CHECK(ten.coarse_labels.empty());
  const uint8_t* pixel = ten.images.data<uint8_t>() + 5 * 3;
  CHECK(int{pixel[0]} == 6);
  CHECK(int{pixel[1]} == 7);
  CHECK(int{pixel[2]} == 8);

  const CifarRecords hundred = parse_cifar(record({19, 99}), "f", 100);
  CHECK(hundred.labels == std::vector<int32_t>{99});
  CHECK(hundred.coarse_labels == std::vector<int32_t>{19});
}

TEST_CASE("CIFAR: sizes and labels that are wrong") {
  CHECK(contains(cifar_refusal({}, 10), "empty"));
  CHECK(contains(cifar_refusal(record({1}) + bytes_of("x"), 10),
                 "got 3074 bytes, expected a multiple of 3073"));
  CHECK(contains(cifar_refusal(record({1}) + record({10}), 10), "f (byte 3073): record 1 has the label 10"));
  CHECK(contains(cifar_refusal(record({20, 0}), 100), "coarse label 20"));
  CHECK(contains(cifar_refusal(record({0, 100}), 100), "fine label 100"));
  CHECK(contains(cifar_refusal(record({1}), 100), "multiple of 3074"));
  CHECK(contains(cifar_refusal(bytes_of("\x80\x02}q\x01"), 10), "pickle"));
  CHECK(contains(cifar_refusal(bytes_of("\x1f\x8b\x08") + record({}), 10), "gzip"));
  CHECK_THROWS_AS(parse_cifar({}, "f", 20), argument_error);

  // 3073 records of CIFAR-100 have the size of 3074 records of CIFAR-10; the labels tell them apart.
  Bytes hundred;
  for (int i = 0; i < 3073; ++i) hundred = std::move(hundred) + record({static_cast<uint8_t>(i % 20), 50});
  CHECK(contains(cifar_refusal(hundred, 10), "is this the binary version of CIFAR-10?"));
}

TEST_CASE("CIFAR: truncation at every byte is refused") {
  CHECK(first_accepted_truncation(record({3}), [](const Bytes& b) { parse_cifar(b, "f", 10); }) == -1);
  CHECK(first_accepted_truncation(record({3, 3}), [](const Bytes& b) { parse_cifar(b, "f", 100); }) == -1);
}

// Every parser of data/formats behind one signature: for libFuzzer, and for the replay of its corpus.
#pragma once

#include "data/formats/file.h"

namespace stairgrad::data {

struct Parser {
  std::string name;  ///< of the folder in tests/fuzz/corpus
  void (*parse)(const Bytes& bytes);
  bool text = false;  ///< its files are texts, in which line ends may change
};

const std::vector<Parser>& parsers();

}  // namespace stairgrad::data

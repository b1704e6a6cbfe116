// The table behind train --list-models.
#include "../../examples/common/model_list.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "../../nn/model.h"
#include "../../quant/policy.h"

using namespace stairgrad;

namespace {

// The row of a network, its columns one blank apart.
std::string row_of(const std::string& table, const std::string& name) {
  const size_t begin = table.find('\n' + name + ' ') + 1;
  std::istringstream words(table.substr(begin, table.find('\n', begin) - begin));
  std::string row, word;
  while (words >> word) row += (row.empty() ? "" : " ") + word;
  return row;
}

}  // namespace

TEST_CASE("the list of networks counts parameters, MACs and BOPs") {
  const std::string table = examples::model_list("w4a4").text();
  // 16 MACs, and 64 for the stem (118,013,952) and the classifier (512,000).
  CHECK(row_of(table, "resnet18") == "resnet18 224 x 224 11,689,512 1,814,073,344 34,714,419,200");
  for (const std::string& name : nn::model_names()) CHECK(row_of(table, name).starts_with(name + ' '));
}

TEST_CASE("a policy file is for the networks whose layers it names") {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("stairgrad_policy_" + std::to_string(getpid()))).string();
  const auto write = [&](quant::Policy policy) { std::ofstream(path) << policy.to_json(); };
  const auto model = nn::make_model("resnet8");
  quant::Policy policy = quant::uniform_policy(*model, {2, 4}, quant::Skip::u8, quant::Ends::same);
  write(policy);
  const std::string table = examples::model_list(path).text();
  CHECK(row_of(table, "resnet8") == "resnet8 32 x 32 75,290 12,239,488 97,915,904");  // 8 times the MACs
  CHECK(row_of(table, "resnet14").ends_with(" 26,395,264 -"));

  policy.layers["conv9"] = {};
  write(policy);
  CHECK_THROWS_AS(examples::model_list(path), argument_error);
  std::filesystem::remove(path);
  CHECK_THROWS_AS(examples::model_list("w4a"), std::runtime_error);
}

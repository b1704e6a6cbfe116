// Settings in a quantizer's name.
#include "../../quant/quantizer_settings.h"

#include "../../quant/quantizer.h"
#include "../../quant/quantizers/dsq.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

const std::vector<SettingRule> rules = {SettingRule::number("alpha", 0.2, 0.001, 0.999),
                                        SettingRule::flag("learn", true), SettingRule::flag("fixed", false),
                                        SettingRule::choice("direct", {"hard", "soft"})};
QuantizerSettings read(const std::string& given) { return {"quantizer", given, rules}; }

std::string refusal(const std::string& given) {
  try {
    read(given);
  } catch (const argument_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("settings: what is given, and what holds otherwise") {
  const QuantizerSettings none = read(""), all = read("direct=soft,alpha=5e-1,learn=no,fixed=yes");
  CHECK(none.number("alpha") == 0.2);
  CHECK(none.flag("learn"));
  CHECK(!none.flag("fixed"));
  CHECK(none.choice("direct") == "hard");
  CHECK(all.number("alpha") == 0.5);
  CHECK(!all.flag("learn"));
  CHECK(all.flag("fixed"));
  CHECK(all.choice("direct") == "soft");
  CHECK_THROWS_AS(none.number("beta"), argument_error);
  CHECK_THROWS_AS(none.flag("alpha"), argument_error);
}

TEST_CASE("settings: what is wrong is said in a sentence") {
  const std::string list =
      "It takes: alpha=0.2 (0.001 .. 0.999), learn=yes|no, fixed=no|yes, direct=hard|soft";
  CHECK(refusal("alhpa=0.3") == "[quantizer] unknown setting 'alhpa'; did you mean 'alpha'? " + list);
  CHECK(refusal("alpha=2") == "[quantizer] alpha: got '2', expected a number from 0.001 to 0.999");
  for (const char* bad : {"alpha=", "alpha=x", "alpha=0.5x", "alpha=nan", "alpha=-0.1", "alpha= 0.5"})
    CHECK(refusal(bad).find("expected a number from 0.001 to 0.999") != std::string::npos);
  CHECK(refusal("learn=maybe") == "[quantizer] learn: got 'maybe', expected one of: yes, no");
  CHECK(refusal("direct=HARD") == "[quantizer] direct: got 'HARD', expected one of: hard, soft");
  CHECK(refusal("alpha=0.3,alpha=0.3") == "[quantizer] got the setting 'alpha' twice, expected it once");
  for (const char* bad : {"alpha", "alpha=0.3,,learn=no", ","})
    CHECK(refusal(bad).find("expected key=value, separated by commas") != std::string::npos);
}

TEST_CASE("settings reach the quantizer, and a spec can be checked without making one") {
  check_quantizer("dsq:alpha=0.4,learn_alpha=no");
  for (const char* bad : {"dsq:alpha=7", "dsq:beta=1", "lsq:alpha=0.2", "qsd", "", ":", "dsq:alpha"})
    CHECK_THROWS_AS(check_quantizer(bad), argument_error);

  const auto q = make_quantizer("dsq:alpha=0.4,learn_alpha=no", {.weight = true});
  q->initialise(random_normal({100}, Philox(1)));
  CHECK(q->own_parameters()[0].item() == doctest::Approx(0.4));
  REQUIRE(q->parameters().size() == 1);
  CHECK(q->parameters()[0].name == "u");
  CHECK(make_quantizer("dsq:learn_range=no", {})->parameters()[0].name == "alpha");
  CHECK(make_quantizer("dsq:learn_range=no,learn_alpha=no", {})->parameters().empty());

  const auto wide = make_quantizer("dsq:init=extremes", {.bits = 2, .weight = true});
  wide->initialise(
      Array::of<float>({-0.1f, 0.1f, 0.1f, -0.1f, 0.1f, 0.1f, -0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 0.1f, 5}));
  CHECK(wide->own_parameters()[1].item() == 5);

  const auto widest = make_quantizer("ste:range=minmax", {.bits = 8});
  for (const float high : {1.0f, 5.1f, 2.0f}) (*widest)(Array::of<float>({0, high}));
  CHECK(widest->to_grid()[0].scale == doctest::Approx(0.02));
}

TEST_CASE("help has a line for every quantizer, with its settings") {
  const std::string help = quantizer_help();
  for (const std::string& name : catalogue)
    CHECK(("\n" + help).find("\n" + name + ": ") != std::string::npos);
  CHECK(help.find("alpha=0.2 (0.001 .. 0.999), learn_alpha=yes|no") != std::string::npos);
}

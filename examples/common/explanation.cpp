#include "explanation.h"

#include <algorithm>
#include <cmath>

#include "../../kernels/same_bytes.h"

namespace stairgrad::examples {
namespace {

namespace integer = quant::integer;

std::string bits_or_dash(int bits) { return bits > 0 ? text(bits) : "-"; }

const integer::Value& value_of(const integer::Model& model, int index) {
  return model.values[static_cast<size_t>(index)];
}

std::string shape_of(const Shape& s) { return text(s[0], "x", s[1], "x", s[2]); }

std::string bits_of(const integer::Value& v) {
  if (!v.codes) return "f32";
  if (v.alternatives.empty()) return text(v.bits);
  std::string list;
  for (const integer::Alternative& a : v.alternatives) list += text(list.empty() ? "" : "/", a.bits);
  return list;
}

int64_t macs_of(const integer::Model& model, const integer::Convolution& c) {
  return value_of(model, c.dst).shape.size() * (c.weights.size() / c.weights.dim(0));
}

// No error at all.
bool exact(const quant::Distance& d) { return d.sqnr == HUGE_VAL; }
std::string decibels(const quant::Distance& d) { return exact(d) ? "exact" : fixed(d.sqnr, 1); }
Value decibels_value(const quant::Distance& d) { return exact(d) ? Value("exact") : Value(d.sqnr); }

// Of a layer that is needed in floats and in codes, or on several grids, there is one copy for each.
int64_t copies(const integer::Model& model) {
  std::vector<const integer::Convolution*> seen;
  int64_t count = 0;
  for (const integer::Layer& layer : model.layers)
    if (const auto* c = std::get_if<integer::Convolution>(&layer)) {
      count += std::ranges::any_of(seen, [&](const auto* other) {
        return other->name == c->name && other->src == c->src && same_bytes(other->weights, c->weights);
      });
      seen.push_back(c);
    }
  return count;
}

}  // namespace

Table layer_table(const integer::Model& model) {
  Table table(
      {"layer", "operation", "kernel", "result", "weights", "reads", "writes", "scale", "MACs", "bytes"});
  for (const integer::Layer& layer : model.layers) {
    const integer::Value &src = value_of(model, integer::sources_of(layer)[0]),
                         &dst = value_of(model, integer::dst_of(layer));
    std::vector<std::string> row = {integer::name_of(model, layer),
                                    integer::op_of(layer),
                                    "",
                                    shape_of(dst.shape),
                                    "-",
                                    bits_of(src),
                                    bits_of(dst),
                                    dst.codes ? text(dst.grid.scale) : "-",
                                    "-",
                                    "-"};
    if (const auto* c = std::get_if<integer::Convolution>(&layer)) {
      row[2] = text(c->weights.dim(1), "x", c->weights.dim(2));
      if (c->options.stride[0] > 1) row[2] += text("/", c->options.stride[0]);
      if (c->options.groups > 1) row[2] += text(" g", c->options.groups);
      row[4] = text(c->weight_bits);
      row[8] = count(macs_of(model, *c));
      row[9] = count(quant::integer::parameter_bytes(*c));
    }
    table.row(row);
  }
  return table;
}

Table model_table(const integer::Model& model, const std::string& path) {
  const integer::Value &input = value_of(model, model.input), &output = value_of(model, model.output);
  int64_t macs = 0, weights = 0;
  for (const integer::Layer& layer : model.layers)
    if (const auto* c = std::get_if<integer::Convolution>(&layer)) {
      macs += macs_of(model, *c);
      weights += c->weights.size();
    }
  Table table({"integer model", path});
  table.row({"input", shape_of(input.shape)});
  table.row({"classes", count(output.shape.size())});
  table.row({"layers", count(static_cast<int64_t>(model.layers.size()))});
  if (const int64_t again = copies(model)) table.row({"layers computed again", count(again)});
  table.row({"weights", count(weights)});
  table.row({"bytes of parameters", bytes(static_cast<double>(integer::parameter_bytes(model)))});
  table.row({"MACs", scaled(static_cast<double>(macs))});
  table.row({"BOPs", scaled(static_cast<double>(integer::bops(model)))});
  if (const int choices = integer::choices_of(model)) table.row({"choices of bits by image", text(choices)});
  for (size_t i = 0; i < model.mean.size(); ++i)
    table.row({text("channel ", i), text("(x - ", model.mean[i], ") / ", model.deviation[i])});
  for (const integer::Value& v : model.values)
    if (!v.note.empty()) table.row({"stays float: " + v.name, v.note});
  return table;
}

Table explanation_table(const std::vector<quant::LayerExplanation>& layers) {
  Table table({"layer", "operation", "W", "A", "SQNR alone", "in the run", "cosine alone", "in the run",
               "saturated", "differing codes", "time", "by"});
  for (const quant::LayerExplanation& e : layers)
    table.row({e.name, e.op, bits_or_dash(e.w_bits), bits_or_dash(e.a_bits), decibels(e.alone),
               decibels(e.cumulative), fixed(e.alone.cosine, 4), fixed(e.cumulative.cosine, 4),
               std::isnan(e.saturated) ? "-" : percent(100 * e.saturated),
               e.codes ? count(e.mismatched) : "-", fixed(1e3 * e.seconds, 3) + " ms", e.implementation});
  return table;
}

Value explanation_value(const std::vector<quant::LayerExplanation>& layers) {
  Value::List list;
  for (const quant::LayerExplanation& e : layers)
    list.push_back(Value::Group{{"name", e.name},
                                {"op", e.op},
                                {"implementation", e.implementation},
                                {"w_bits", e.w_bits},
                                {"a_bits", e.a_bits},
                                {"sqnr_alone_db", decibels_value(e.alone)},
                                {"sqnr_cumulative_db", decibels_value(e.cumulative)},
                                {"cosine_alone", e.alone.cosine},
                                {"cosine_cumulative", e.cumulative.cosine},
                                {"saturated", e.saturated},
                                {"codes", e.codes},
                                {"codes_mismatched", e.mismatched},
                                {"seconds", e.seconds}});
  return list;
}

void add_explanation(Report& report, const std::vector<quant::LayerExplanation>& layers, int64_t images) {
  report.section("Layer by layer");
  report.paragraph(
      text("The integer model beside the float network of the same weights, on ", images,
           " images. Alone: the layer is given the float network's activations, on its grids. In the "
           "run: with all errors before it. SQNR in dB; saturated: codes at an end of the grid that the "
           "float network goes beyond; differing: from the quantized evaluation."));
  report.table(explanation_table(layers));
}

}  // namespace stairgrad::examples

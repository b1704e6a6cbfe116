#include "attribution.h"

#include <algorithm>
#include <cmath>

#include "../../kernels/movement.h"
#include "../../nn/losses/attribution.h"
#include "pictures.h"

namespace stairgrad::examples {

void AttributionFigures::record(Value& result) const {
  result.set("attribution.images", images);
  result.set("attribution.spearman", spearman);
  result.set("attribution.rank_error", rank_error);
  result.set("attribution.entropy", entropy);
  result.set("attribution.float_entropy", float_entropy);
  result.set("attribution.empty_percent", empty);
  result.set("attribution.input_gradient_mismatch", input_gradient_mismatch);
}

std::string AttributionFigures::str() const {
  return text("Attribution on ", images, " test pictures, against the float network: Spearman ",
              fixed(spearman, 3), ", rank error ", fixed(rank_error, 3), ", entropy ", fixed(entropy, 3),
              " (float ", fixed(float_entropy, 3), "), empty ", percent(empty, 1),
              ", mismatch of input gradients ", fixed(input_gradient_mismatch, 3), ".");
}

namespace {

data::Loader loader_of_some(const Task& task, int64_t count) {
  const data::Dataset some = some_of(task.test, count);
  return {some, task.test_transform(), {.batch = std::min<int64_t>(100, std::max<int64_t>(1, some.size()))}};
}

void append(std::vector<double>& all, const std::vector<double>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

}  // namespace

AttributionFigures measure_attribution(nn::Model& quantized, nn::Model& in_floats, const Task& task,
                                       int64_t count) {
  std::vector<double> correlations, errors, entropies, float_entropies, mismatches;
  data::Loader loader = loader_of_some(task, count);
  AttributionFigures figures;
  for (const data::Batch& batch : loader.epoch(0)) {
    const Array own = nn::attribution_map(quantized, batch.images),
                expected = nn::attribution_map(in_floats, batch.images);
    append(correlations, nn::spearman(own, expected));
    append(errors, nn::rank_errors(own, expected));
    append(entropies, nn::entropies(own));
    append(float_entropies, nn::entropies(expected));
    if (figures.images < 200)
      mismatches.push_back(nn::input_gradient_mismatch(in_floats, quantized, batch.images, batch.labels));
    figures.images += batch.size();
  }
  for (size_t i = 0; i < entropies.size(); ++i)
    figures.empty += 100.0 * (std::isnan(entropies[i]) || std::isnan(float_entropies[i])) /
                     static_cast<double>(entropies.size());
  figures.spearman = nn::mean_of_numbers(correlations);
  figures.rank_error = nn::mean_of_numbers(errors);
  figures.entropy = nn::mean_of_numbers(entropies);
  figures.float_entropy = nn::mean_of_numbers(float_entropies);
  figures.input_gradient_mismatch = nn::mean_of_numbers(mismatches);
  return figures;
}

double rank_error_to(const nn::Explainer& reference, nn::Model& quantized, const Task& task, int64_t count) {
  std::vector<double> errors;
  data::Loader loader = loader_of_some(task, count);
  for (const data::Batch& batch : loader.epoch(0))
    append(errors, nn::rank_errors(nn::attribution_map(quantized, batch.images),
                                   reference(batch.images, "", {}).map.value()));
  return nn::mean_of_numbers(errors);
}

Array show_attribution(Report& report, nn::Model& quantized, nn::Model& in_floats, const Task& task,
                       int64_t count) {
  const data::Dataset some = some_of(task.test, count);
  data::Loader loader(some, task.test_transform(), {.batch = some.size()});
  loader.start(0);
  data::Batch batch;
  loader.next(batch);
  const Array float_maps = nn::attribution_map(in_floats, batch.images),
              maps = nn::attribution_map(quantized, batch.images);
  std::vector<Picture> originals, float_rows, rows;
  const auto overlay = [](const Array& image, const Array& all, int64_t i) {
    return heat_overlay(image, all.slice(i, 1).reshape({all.dim(1), all.dim(2)}));
  };
  for (int64_t i = 0; i < batch.size(); ++i) {
    Array image = task.seen(some.image(i));
    if (image.dim(2) == 1) image = kernels::concat({image, image, image}, 2);
    image = enlarge(image, static_cast<int>(std::max<int64_t>(1, 128 / image.dim(0))));
    originals.push_back({image, some.class_names[static_cast<size_t>(some.labels[static_cast<size_t>(i)])]});
    float_rows.push_back({overlay(image, float_maps, i), ""});
    rows.push_back({overlay(image, maps, i), ""});
  }
  report.section("Where the networks look");
  report.paragraph("Grad-CAM of each network's own top class at its last feature map.");
  report.pictures("Test pictures and their classes", originals, 84);
  report.pictures("Float network", float_rows, 84);
  report.pictures("Quantized network", rows, 84);
  std::vector<Array> sheet;
  for (const auto* row : {&originals, &float_rows, &rows})
    for (const Picture& picture : *row) sheet.push_back(picture.image);
  return contact_sheet(sheet, static_cast<int>(originals.size()));
}

}  // namespace stairgrad::examples

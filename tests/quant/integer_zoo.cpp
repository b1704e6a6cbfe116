// Integer models of zoo networks, and their logits as deployed programs compute them, with buffers reused.
//   integer_zoo write FOLDER
//   integer_zoo run FOLDER FILE
#include <cstdio>

#include "../../autograd/recorder.h"
#include "../../data/formats/safetensors.h"
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/session.h"
#include "../../quant/lower.h"
#include "../../quant/sites.h"
#include "batch_norms.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

struct Network {
  const char* name;
  double width;
  int bits;
  const char* granularity;
};
const Network networks[] = {{"resnet20", 1, 4, "layer"}, {"mobilenet_v2", 0.25, 8, "channel"}};

std::string file_of(const std::string& folder, const Network& n) {
  return text(folder, '/', n.name, ".safetensors");
}

void write(const Network& n, const std::string& folder) {
  const auto model = nn::make_model(n.name, {.image_size = 32, .width = n.width});
  nn::initialise(*model, 3);
  settle_batch_norms(*model, /*scales=*/true);
  model->eval();
  attach_sites(*model, uniform_policy(*model, {n.bits, n.bits, "lsq", n.granularity}, Skip::u8, Ends::eight));
  const NoGrad no_grad;
  (*model)(random_normal(model->input_shape(8), Philox(1)));  // the quantizers start
  integer::save(
      lower(trace([&](const Tensors& in) { return (*model)(in[0]); }, {Array::zeros(model->input_shape())})),
      file_of(folder, n));
}

// At the batch sizes of tables and of single pictures.
void run(const Network& n, const std::string& folder, data::SafeTensors& logits) {
  const integer::Model model = integer::load(file_of(folder, n));
  const Shape& image = model.values[static_cast<size_t>(model.input)].shape;
  for (const int64_t batch : {1, 32}) {
    integer::Session session(model, batch);
    logits.tensors[text(n.name, '.', batch)] =
        session.run(random_normal({batch, image[0], image[1], image[2]}, Philox(2))).clone();
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 2 ? argv[1] : "";
  if (!(what == "write" && argc == 3) && !(what == "run" && argc == 4))
    return std::fprintf(stderr, "usage: integer_zoo write FOLDER | run FOLDER FILE\n"), 1;
  data::SafeTensors logits;
  for (const Network& n : networks) {
    if (what == "write")
      write(n, argv[2]);
    else
      run(n, argv[2], logits);
  }
  if (what == "run") data::save_safetensors(argv[3], logits);
  return 0;
}

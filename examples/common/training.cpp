#include "training.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../nn/average.h"
#include "../../nn/checkpoint.h"
#include "interrupt.h"
#include "progress.h"
#include "table.h"

namespace stairgrad::examples {

void TrainingOptions::add_to(Options& o) {
  o.add("--epochs", epochs, "passes over the training images").between(0, 100'000);
  o.add("--batch", batch, "images a step").between(1, 65'536);
  o.add("--optimiser", optimiser,
        "sgd with Nesterov's momentum, or adamw, whose learning rates are some hundred times smaller")
      .one_of({"sgd", "adamw"});
  o.add("--lr", lr, "learning rate after the warm-up; it falls along a cosine to 0").between(0, 1000);
  o.add("--momentum", momentum, "momentum of SGD").between(0, 0.9999);
  o.add("--weight-decay", weight_decay, "weight decay of convolutions and linear layers").between(0, 1);
  o.add("--warmup", warmup, "epochs during which the learning rate rises").at_least(0);
  o.add("--label-smoothing", label_smoothing, "share of each target moved to the other classes")
      .between(0, 0.999);
  o.add("--ema", average, "decay of a moving average of the weights, such as 0.999; 0: none")
      .between(0, 0.999999);
  o.add("--crop", crop, "border of the random crop, pixels; 0: no crop").between(0, 1024);
  o.add("--no-flip", no_flip, "do not mirror images at random");
  o.add("--jitter", jitter,
        "brightness, contrast and saturation change by factors from 1 - X to 1 + X, such as 0.4; 0: none")
      .between(0, 1);
  o.add("--cutout", cutout, "side of a square erased from each image, pixels; 0: none").between(0, 4096);
  o.add("--mixup", mixup, "alpha of mixup; 0: none").between(0, 100);
  o.add("--cutmix", cutmix, "alpha of CutMix; 0: none").between(0, 100);
  o.add("--dtype", dtype, "type of the activations").one_of({"f32", "bf16"});
  o.add("--workers", workers, "threads that prepare batches; results do not depend on it").between(1, 64);
}

std::map<std::string, std::string> TrainingOptions::notes() const {
  std::map<std::string, std::string> notes = {{"epochs", text(epochs)},
                                              {"batch", text(batch)},
                                              {"lr", text(lr)},
                                              {"momentum", text(momentum)},
                                              {"weight-decay", text(weight_decay)},
                                              {"warmup", text(warmup)},
                                              {"label-smoothing", text(label_smoothing)},
                                              {"ema", text(average)},
                                              {"crop", text(crop)},
                                              {"no-flip", text(no_flip)},
                                              {"cutout", text(cutout)},
                                              {"mixup", text(mixup)},
                                              {"cutmix", text(cutmix)},
                                              {"dtype", dtype},
                                              {"seed", text(seed)}};
  // Runs from before these options have no such notes.
  if (jitter > 0) notes["jitter"] = text(jitter);
  if (optimiser != "sgd") notes["optimiser"] = optimiser;
  return notes;
}

DType TrainingOptions::type() const {
  check(dtype == "f32" || dtype == "bf16", "--dtype: got ", dtype, ", expected f32 or bf16");
  return dtype == "bf16" ? DType::bf16 : DType::f32;
}

data::Transform training_transform(const TrainingOptions& options, const data::Normalisation& normalisation) {
  data::Transform transform;
  transform.normalisation = normalisation;
  transform.jitter = {.brightness = options.jitter, .contrast = options.jitter, .saturation = options.jitter};
  transform.pad = options.crop;
  transform.flip = !options.no_flip;
  transform.cutout = options.cutout;
  return transform;
}

data::LoaderOptions loader_options(const TrainingOptions& options) {
  return {.batch = options.batch,
          .shuffle = true,
          .drop_last = true,
          .workers = options.workers,
          .seed = options.seed,
          .dtype = options.type(),
          .mixup = options.mixup,
          .cutmix = options.cutmix};
}

std::vector<nn::ParameterGroup> decayed_groups(const nn::Module& model, double weight_decay) {
  std::vector<nn::ParameterGroup> groups = {{{}, 1, weight_decay}, {{}, 1, 0}};
  for (const nn::NamedTensor& p : model.parameters()) groups[p.tensor.rank() < 2].parameters.push_back(p);
  return groups;
}

std::unique_ptr<nn::Optimiser> make_optimiser(const TrainingOptions& options,
                                              std::vector<nn::ParameterGroup> groups) {
  if (options.optimiser == "adamw") return std::make_unique<nn::AdamW>(std::move(groups));
  return std::make_unique<nn::SGD>(std::move(groups), options.momentum, /*nesterov=*/true);
}

data::Dataset some_of(const data::Dataset& dataset, int64_t count) {
  const int64_t taken = std::min({dataset.size(), count, int64_t{5000}});
  std::vector<int64_t> indices(static_cast<size_t>(taken));
  for (int64_t i = 0; i < taken; ++i) indices[static_cast<size_t>(i)] = i * dataset.size() / taken;
  return data::subset(dataset, std::move(indices));
}

namespace {

// Sum of -log softmax(logits)[label] over the batch, in double.
double total_loss(const Array& logits, const std::vector<int32_t>& labels, int64_t first) {
  const int64_t classes = logits.dim(1);
  double total = 0;
  for (int64_t i = 0; i < logits.dim(0); ++i) {
    const float* row = logits.data<float>() + i * classes;
    const float largest = *std::max_element(row, row + classes);
    double sum = 0;
    for (int64_t c = 0; c < classes; ++c) sum += std::exp(double{row[c]} - largest);
    total += std::log(sum) + largest - row[labels[static_cast<size_t>(first + i)]];
  }
  return total;
}

}  // namespace

int64_t evaluation_batch(const Shape& image) {
  constexpr int64_t pixels = 32 * 224 * 224;
  return std::clamp<int64_t>(pixels / std::max<int64_t>(1, image[0] * image[1]), 1, 250);
}

Evaluated evaluate(const std::function<Array(const Array& images)>& logits, const data::Dataset& dataset,
                   const data::Transform& transform, DType dtype) {
  const Stopwatch watch;
  Evaluated result;
  int64_t correct = 0;
  const int64_t batch = evaluation_batch(transform.dst_shape(dataset.image_shape));
  data::Loader loader(dataset, transform, {.batch = batch, .dtype = dtype});
  for (const data::Batch& b : loader.epoch(0)) {
    const Array y = cast(logits(b.images), DType::f32);
    check(y.rank() == 2 && y.dim(0) == b.size() && y.dim(1) == dataset.classes(), "[evaluate] got logits ",
          y.shape(), ", expected (", b.size(), ',', dataset.classes(), ") because ", dataset.name, " has ",
          dataset.classes(), " classes");
    const double loss = total_loss(y, dataset.labels, result.images);
    if (!std::isfinite(loss))
      throw numeric_error(
          text("a logit of images ", result.images, " to ", result.images + b.size() - 1, " is not finite"));
    result.loss += loss;
    for (int64_t i = 0; i < b.size(); ++i) {
      const float* row = y.data<float>() + i * y.dim(1);
      const auto best = static_cast<int32_t>(std::max_element(row, row + y.dim(1)) - row);
      correct += best == dataset.labels[static_cast<size_t>(result.images + i)];
      result.predictions.push_back(best);
    }
    result.images += b.size();
  }
  const auto n = static_cast<double>(std::max<int64_t>(1, result.images));
  result.loss /= n;
  result.accuracy = 100 * static_cast<double>(correct) / n;
  result.seconds = watch.seconds();
  return result;
}

Evaluated evaluate(nn::Model& model, const data::Dataset& dataset, const data::Transform& transform,
                   DType dtype) {
  const nn::Evaluation evaluation(model);
  const NoGrad no_grad;
  return evaluate([&](const Array& images) { return model(images).value(); }, dataset, transform, dtype);
}

Tensor cross_entropy_of(const Tensor& logits, const data::Batch& batch, double label_smoothing) {
  const Tensor y = cast(logits, DType::f32);
  if (!batch.soft_labels.has_value()) return cross_entropy(y, batch.labels, label_smoothing);
  const Tensor targets =
      Tensor(batch.soft_labels) * (1 - label_smoothing) + label_smoothing / static_cast<double>(y.dim(1));
  return soft_cross_entropy(y, targets);
}

namespace {

// One run of train(): where it is, and how it moves on.
class Loop {
 public:
  explicit Loop(TrainingJob& job) : job_(job), steps_(job.options.epochs * job.loader.batches()) {
    if (job_.options.average > 0) average_.emplace(job_.model, job_.options.average);
    job_.notes.merge(job_.options.notes());
    job_.notes["phase"] = job_.phase;
  }

  void resume() {
    if (job_.run.has(job_.checkpoint)) {
      nn::Checkpoint current = snapshot();
      nn::restore(nn::load_checkpoint(job_.run.file(job_.checkpoint)), current);
      epoch_ = current.counters.at("epoch");
      batch_ = current.counters.at("batch");
    }
    job_.run.forget_metrics_after(job_.phase, job_.first_epoch + epoch_);
  }

  void run() {
    const int64_t images = job_.options.epochs * job_.loader.images();
    Progress progress(job_.phase, images, "images",
                      epoch_ * job_.loader.images() + batch_ * job_.options.batch);
    const Interrupt interrupt;
    job_.model.train();
    while (epoch_ < job_.options.epochs) {
      run_epoch(progress, interrupt);
      finish_epoch(progress);
      save();
      interrupt.stop_here();
    }
    if (average_) average_->swap();
  }

  // Of every epoch, also those of an earlier process: metrics outlive it.
  double all_seconds() const {
    const RunDirectory::Series epochs = job_.run.series("epoch", "seconds");
    double total = 0;
    for (size_t i = 0; i < epochs.x.size(); ++i)
      if (epochs.x[i] > job_.first_epoch && epochs.x[i] <= job_.first_epoch + job_.options.epochs)
        total += epochs.y[i];
    return total;
  }

 private:
  void run_epoch(Progress& progress, const Interrupt& interrupt) {
    data::Loader& loader = job_.loader;
    double stalled = loader.stalled_seconds();
    loader.start(epoch_, batch_);
    data::Batch batch;
    for (Stopwatch watch; loader.next(batch); watch = {}) {  // the watch counts waiting for the batch as well
      progress.waited(loader.stalled_seconds() - stalled);
      stalled = loader.stalled_seconds();
      const double loss = step(batch);
      ++batch_;
      total_loss() += loss;
      seconds() += watch.seconds();
      progress.advance(batch.size(),
                       text("epoch ", job_.first_epoch + epoch_ + 1, ", loss ", fixed(loss, 3)));
      if (interrupt.requested() && batch_ < loader.batches()) {
        save();
        interrupt.stop_here();
      }
    }
  }

  double step(const data::Batch& batch) {
    const int64_t number = epoch_ * job_.loader.batches() + batch_;
    const Tensor loss =
        job_.loss ? job_.loss(batch.images, batch)
                  : cross_entropy_of(job_.model(Tensor(batch.images)), batch, job_.options.label_smoothing);
    const double value = loss.item();
    if (!std::isfinite(value)) fail(number, value);
    const Tensors gradients = grad({loss}, job_.optimiser.parameters());
    job_.optimiser.step(gradients, learning_rate(number));
    if (job_.after_step) job_.after_step();
    if (average_) average_->update();
    return value;
  }

  double learning_rate(int64_t step) const {
    const auto warmup = std::llround(job_.options.warmup * static_cast<double>(job_.loader.batches()));
    return nn::cosine_schedule(job_.options.lr, step, steps_, std::min<int64_t>(warmup, steps_));
  }

  [[noreturn]] void fail(int64_t step, double loss) const {
    std::string where = "all parameters are finite";
    for (const auto& [name, array] : job_.model.state()) {
      const std::vector<double> values = array.to_vector();
      if (std::ranges::all_of(values, [](double x) { return std::isfinite(x); })) continue;
      where = name + " is not finite";
      break;
    }
    throw numeric_error(text("step ", step + 1, " (epoch ", job_.first_epoch + epoch_ + 1, "): the loss is ",
                             loss, "; ", where, "; a lower --lr or a longer --warmup may help"));
  }

  void finish_epoch(Progress& progress) {
    const int64_t epoch = job_.first_epoch + epoch_ + 1, last_step = (epoch_ + 1) * job_.loader.batches() - 1;
    const auto batches = static_cast<double>(std::max<int64_t>(1, batch_));
    const double loss = total_loss() / batches, took = seconds();
    const double rate = static_cast<double>(job_.loader.images()) / std::max(took, 1e-9);
    std::string line =
        text("epoch ", epoch, "/", job_.first_epoch + job_.options.epochs, ": loss ", fixed(loss, 4));
    Value accuracy, measured_loss;
    if (job_.evaluate) {
      if (average_) average_->swap();
      const Evaluated found = job_.evaluate();
      if (average_) average_->swap();
      accuracy = found.accuracy;
      measured_loss = found.loss;
      line += text(", ", job_.measured, " accuracy ", percent(found.accuracy));
    }
    progress.line(line + text(", ", count(std::llround(rate)), " images/s"));
    job_.run.metrics({{"phase", job_.phase},
                      {"epoch", epoch},
                      {"loss", loss},
                      {"accuracy", accuracy},
                      {"measured_loss", measured_loss},
                      {"lr", learning_rate(last_step)},
                      {"images_per_second", rate},
                      {"seconds", took}});
    ++epoch_;
    batch_ = 0;
    total_loss() = seconds() = 0;
  }

  nn::Checkpoint snapshot() const {
    nn::Checkpoint now;
    now.parts = {
        {"model", job_.model.state()}, {"optimiser", job_.optimiser.state()}, {"epoch", {{"sums", sums_}}}};
    if (average_) now.parts["average"] = average_->state();
    now.parts.insert(job_.parts.begin(), job_.parts.end());
    now.counters = {{"epoch", epoch_}, {"batch", batch_}};
    now.notes = job_.notes;
    return now;
  }
  void save() const { nn::save_checkpoint(job_.run.file(job_.checkpoint), snapshot()); }

  // Loss and seconds of the epoch so far, summed over its batches.
  double& total_loss() { return sums_.data<double>()[0]; }
  double& seconds() { return sums_.data<double>()[1]; }

  TrainingJob& job_;
  int64_t steps_, epoch_ = 0, batch_ = 0;
  std::optional<nn::WeightAverage> average_;
  Array sums_ = Array::zeros({2}, DType::f64);
};

}  // namespace

double train(TrainingJob job, bool resume) {
  check(job.loader.batches() > 0 || job.options.epochs == 0, "got ", job.loader.dataset().size(),
        " training images for batches of ", job.options.batch, "; take a smaller --batch");
  Loop loop(job);
  if (resume) loop.resume();
  loop.run();
  const double seconds = loop.all_seconds();
  const auto images = static_cast<double>(job.options.epochs * job.loader.images());
  if (seconds > 0) job.run.result().set("speed." + job.phase + ".images_per_second", images / seconds);
  return seconds;
}

}  // namespace stairgrad::examples

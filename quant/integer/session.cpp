#include "session.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>

#include "../../kernels/threads.h"
#include "steps.h"

namespace stairgrad::quant::integer {
namespace {

constexpr int64_t most_images_at_once = 4;
constexpr int64_t cache_bytes = 512 << 10;  // what a layer reads and writes should fit in it

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }
int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Gives out intervals of one block of memory, the lowest that is free.
class Arena {
 public:
  int64_t take(int64_t size) {
    int64_t begin = 0;
    for (const auto& [start, end] : taken_) {
      if (begin + size <= start) break;
      begin = std::max(begin, end);
    }
    taken_[begin] = begin + size;
    size_ = std::max(size_, begin + size);
    return begin;
  }
  void give_back(int64_t begin) { taken_.erase(begin); }
  int64_t size() const { return size_; }

 private:
  std::map<int64_t, int64_t> taken_;  // begin to end
  int64_t size_ = 0;
};

}  // namespace

struct Session::Impl {
  // What one thread, or the threads that share the work of a layer, work on.
  struct Memory {
    Array block;
    std::vector<void*> values;  // by index
  };

  Model model;
  int64_t batch;
  bool keep_values;
  bool shares_layers;  // else each thread takes images of its own
  int team;
  int64_t at_once;  // images that pass a layer together

  std::vector<Step> steps;  // by layer
  std::vector<int64_t> offsets;
  int64_t memory_bytes = 0, scratch_bytes = 0;
  std::vector<Memory> memories;
  Array scratch;  // of each thread
  Arrays kept;    // by value
  std::vector<double> seconds;
  bool selecting = false;  // the model's selector makes the choices of this run
  Array logits, own_choices;
  TeamSteps together;  // where threads share layers

  Impl(const Model& source, int64_t batch, bool keep_values)
      : model(source),
        batch(batch),
        keep_values(keep_values),
        together(static_cast<int64_t>(source.layers.size()), threads()) {
    validate(model);
    check(batch > 0, "[session] got the batch size ", batch, ", expected at least 1");
    shares_layers = keep_values || batch < threads();
    team = threads();
    at_once = shares_layers ? batch : images_at_once();
    for (const Layer& layer : model.layers) {
      // Steps run in threads of ours: what they prepare is for one thread.
      const SerialScope serial;
      steps.push_back(make_step(model, layer, at_once, shares_layers ? team : 1));
      scratch_bytes = std::max(scratch_bytes, aligned(static_cast<int64_t>(steps.back().scratch_bytes)));
    }
    seconds.resize(steps.size());
    scratch = Array({team * scratch_bytes}, DType::u8);
    logits = Array({batch, info(model.output).shape.size()});
    if (selects(model)) own_choices = Array::zeros({batch, choices_of(model)}, DType::u8);
    if (keep_values)
      keep();
    else
      plan();
  }

  const Value& info(int index) const { return model.values[static_cast<size_t>(index)]; }
  Shape batched(const Shape& s) const { return {batch, s[0], s[1], s[2]}; }
  int64_t bytes_of(int value, int64_t images) const {
    return images * info(value).shape.size() * static_cast<int64_t>(info(value).codes ? 1 : sizeof(float));
  }

  // As many images as the cache holds between two layers, in groups of about the same size.
  int64_t images_at_once() const {
    int64_t largest = 1;
    for (const Layer& layer : model.layers) {
      int64_t bytes = bytes_of(dst_of(layer), 1);
      for (const int src : sources_of(layer)) bytes += src == model.input ? 0 : bytes_of(src, 1);
      largest = std::max(largest, bytes);
    }
    const int64_t most = std::clamp<int64_t>(cache_bytes / largest, 1, most_images_at_once);
    const int64_t of_thread = pieces(batch, team);
    return pieces(of_thread, pieces(of_thread, most));
  }

  void keep() {
    memories.resize(1);
    memories[0].values.resize(model.values.size());
    for (int i = 0; i < static_cast<int>(model.values.size()); ++i) {
      kept.emplace_back(batched(info(i).shape), info(i).codes ? DType::u8 : DType::f32);
      memories[0].values[static_cast<size_t>(i)] = kept.back().raw();
    }
  }

  // The static memory plan: a buffer is free again after the last layer that reads its value. A layer that
  // works element by element writes over what it reads for the last time: a remapping its source, a
  // convolution its skip.
  void plan() {
    std::map<int, size_t> last_read;
    for (size_t i = 0; i < model.layers.size(); ++i) {
      last_read.emplace(dst_of(model.layers[i]), i);  // also where nothing reads it
      for (const int src : sources_of(model.layers[i])) last_read[src] = i;
    }
    last_read[model.output] = model.layers.size();

    Arena arena;
    offsets.resize(model.values.size());
    for (size_t i = 0; i < model.layers.size(); ++i) {
      const int dst = dst_of(model.layers[i]);
      const auto* conv = std::get_if<Convolution>(&model.layers[i]);
      const auto* remap = std::get_if<Remap>(&model.layers[i]);
      const int over = remap ? remap->src : conv && conv->skip != conv->src ? conv->skip : -1;
      const bool overwrites = over >= 0 && last_read[over] == i && info(over).codes == info(dst).codes;
      int64_t& offset = offsets[static_cast<size_t>(dst)];
      offset = overwrites ? offsets[static_cast<size_t>(over)] : arena.take(aligned(bytes_of(dst, at_once)));
      for (const int src : sources_of(model.layers[i])) {
        if (src == model.input || last_read[src] != i) continue;
        if (!overwrites || src != over) arena.give_back(offsets[static_cast<size_t>(src)]);
      }
      if (last_read[dst] == i) arena.give_back(offset);
    }
    memory_bytes = arena.size();
    memories.resize(shares_layers ? 1 : static_cast<size_t>(team));
    for (Memory& memory : memories) {
      memory.block = Array::zeros({memory_bytes}, DType::u8);
      auto* begin = memory.block.data<uint8_t>();
      for (const int64_t offset : offsets) memory.values.push_back(begin + offset);
    }
  }

  const Array& run(const Array& images, const Array& choices) {
    const Shape expected = batched(info(model.input).shape);
    check(images.shape() == expected && images.dtype() == DType::f32, "[session] images: got ",
          name_of(images.dtype()), images.shape(), ", expected f32", expected);
    const uint8_t* chosen = choices.has_value() ? check_choices(choices) : nullptr;
    selecting = !chosen && own_choices.has_value();
    if (selecting) chosen = own_choices.data<uint8_t>();
    const float* first = images.data<float>();
    if (shares_layers) begin_shared(first);
    if (team == 1) {
      const SerialScope serial;
      if (shares_layers) together.reset();
      shares_layers ? run_shared(chosen, 0) : run_own(first, chosen, 0);
    } else if (shares_layers) {
      together.reset();
      parallel_team(team, [&](int rank, int) { run_shared(chosen, rank); });
    } else {
      parallel_for(team, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) run_own(first, chosen, i);
      });
    }
    if (shares_layers) end_shared();
    return logits;
  }

  const uint8_t* check_choices(const Array& choices) const {
    const int64_t columns = choices_of(model);
    check(choices.dtype() == DType::u8 && choices.shape() == Shape({batch, columns}),
          "[session] choices: got ", name_of(choices.dtype()), choices.shape(), ", expected u8",
          Shape({batch, columns}));
    for (const Value& v : model.values)
      for (int64_t i = 0; v.choice >= 0 && i < batch; ++i)
        check(choices.data<uint8_t>()[i * columns + v.choice] < v.alternatives.size(),
              "[session] choices: got ", int{choices.data<uint8_t>()[i * columns + v.choice]}, " for ",
              v.name, ", which has ", v.alternatives.size(), " alternatives");
    return choices.data<uint8_t>();
  }

  uint8_t* own_choices_at(int64_t offset) {
    return selecting ? own_choices.data<uint8_t>() + offset : nullptr;
  }
  void* scratch_of(int64_t thread) { return scratch.data<uint8_t>() + thread * scratch_bytes; }

  void begin_shared(const float* images) {
    Memory& memory = memories[0];
    memory.values[static_cast<size_t>(model.input)] = const_cast<float*>(images);
    memory.values[static_cast<size_t>(model.output)] = logits.raw();
    if (!keep_values) return;
    Array& own = kept[static_cast<size_t>(model.input)];
    std::memcpy(own.raw(), images, own.bytes());
  }
  void end_shared() {
    if (keep_values)
      kept[static_cast<size_t>(model.output)] = logits.reshape(batched(info(model.output).shape));
  }

  // All images pass a layer together, and each thread does parts of it.
  void run_shared(const uint8_t* choices, int rank) {
    using Clock = std::chrono::steady_clock;
    Clock::time_point last = keep_values ? Clock::now() : Clock::time_point{};
    for (size_t i = 0; i < steps.size(); ++i) {
      together.run(static_cast<int64_t>(i), rank, [&](int part) {
        steps[i].run(
            {memories[0].values.data(), scratch_of(rank), batch, choices, own_choices_at(0), part, team});
      });
      if (!keep_values || rank > 0) continue;
      const Clock::time_point now = Clock::now();
      seconds[i] = std::chrono::duration<double>(now - last).count();
      last = now;
    }
  }

  // Images of this thread pass all layers, a few at a time.
  void run_own(const float* images, const uint8_t* choices, int64_t thread) {
    Memory& memory = memories[static_cast<size_t>(thread)];
    const int64_t groups = pieces(batch, at_once), columns = choices ? choices_of(model) : 0;
    const int64_t image = info(model.input).shape.size(), classes = info(model.output).shape.size();
    for (int64_t group = groups * thread / team; group < groups * (thread + 1) / team; ++group) {
      const int64_t first = group * at_once, count = std::min(at_once, batch - first);
      memory.values[static_cast<size_t>(model.input)] = const_cast<float*>(images) + first * image;
      const Work work{memory.values.data(),
                      scratch_of(thread),
                      count,
                      choices ? choices + first * columns : nullptr,
                      own_choices_at(first * columns),
                      0,
                      1};
      for (const Step& step : steps) step.run(work);
      std::memcpy(logits.data<float>() + first * classes, memory.values[static_cast<size_t>(model.output)],
                  static_cast<size_t>(count * classes) * sizeof(float));
    }
  }
};

Session::Session(const Model& model, int64_t batch, bool keep_values)
    : impl_(std::make_unique<Impl>(model, batch, keep_values)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;

int64_t Session::batch() const { return impl_->batch; }
int64_t Session::buffer_bytes() const {
  return static_cast<int64_t>(impl_->memories.size()) * impl_->memory_bytes +
         impl_->team * impl_->scratch_bytes;
}

const Array& Session::run(const Array& images) { return impl_->run(images, {}); }
const Array& Session::run(const Array& images, const Array& choices) { return impl_->run(images, choices); }

const Array& Session::choices() const {
  check(impl_->own_choices.has_value(), "[session] the model has no selector, expected one that chooses");
  return impl_->own_choices;
}

const Array& Session::value(int index) const {
  check(impl_->keep_values, "[session] values are not kept; make the session with keep_values");
  check(index >= 0 && index < static_cast<int>(impl_->kept.size()), "[session] got value ", index, " of ",
        impl_->kept.size());
  return impl_->kept[static_cast<size_t>(index)];
}

double Session::seconds(size_t layer) const {
  check(impl_->keep_values, "[session] times are not kept; make the session with keep_values");
  check(layer < impl_->seconds.size(), "[session] got layer ", layer, " of ", impl_->seconds.size());
  return impl_->seconds[layer];
}

const char* Session::implementation(size_t layer) const {
  check(layer < impl_->steps.size(), "[session] got layer ", layer, " of ", impl_->steps.size());
  return impl_->steps[layer].implementation.c_str();
}

}  // namespace stairgrad::quant::integer

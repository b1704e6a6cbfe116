// What a program works on: a network of the zoo and a data set that fits it.
#pragma once

#include <memory>
#include <string>

#include "../../data/transforms.h"
#include "../../nn/checkpoint.h"
#include "options.h"
#include "training.h"

namespace stairgrad::examples {

/// Which network, which data.
struct TaskOptions {
  std::string model = "resnet20", dataset = "cifar10";
  std::string init = {};        ///< model file to start from
  bool init_partial = false;    ///< of --init take what fits; the rest gets initial values
  bool accept_nan = false;      ///< of --init take weights that are NaN or infinite too
  std::string import = {};      ///< recipe that --init is read by; empty: it is a file of ours
  std::string norm = {};        ///< normalisation; empty: that of the model file, or else the data set's own
  std::string activation = {};  ///< relu or hardtanh; empty: that of the model file, or else relu
  double width = 1;             ///< multiplies the channels of the network
  int64_t size = 0;             ///< pictures are cut to squares of so many pixels; 0: they stay as they are
  int64_t limit = 0;            ///< use so many training and test pictures only; 0: all
  bool validate = false;        ///< hold out a part of the training pictures and never look at the test set

  void add_to(Options& options);
  nn::NotFinite not_finite() const { return accept_nan ? nn::NotFinite::accept : nn::NotFinite::refuse; }
};

/// What makes pictures fit a network that sees squares of `side` pixels: others are cut to their middle,
/// large ones after the shorter side became 8/7 of it.
data::Transform fitting_transform(const data::Dataset& pictures, const data::Normalisation& normalisation,
                                  int64_t side);

/// The network and the data, ready to be used.
struct Task {
  data::Dataset train, test;
  data::Normalisation normalisation;
  int64_t size = 0;    ///< of TaskOptions
  nn::ModelInfo info;  ///< how the network is saved; its notes name data set and normalisation
  std::unique_ptr<nn::Model> model;
  nn::StateMismatch not_loaded;                              ///< what --init-partial left out
  nn::Activation trained_activation = nn::Activation::relu;  ///< that of --init, whatever --activation says

  /// A copy of the network as --init knows it: to measure it, and to learn from; in evaluation mode.
  std::unique_ptr<nn::Model> as_trained() const;
  data::Transform test_transform() const;
  data::Transform training_transform(const TrainingOptions& options) const;
  /// The part of a picture that the network sees when it is measured, u8.
  Array seen(const Array& picture) const;
};

/// Loads the data, then makes the network: from options.init with its values, or with initial ones drawn from
/// `seed`; with options.init_partial both. Throws argument_error when the network does not fit the pictures
/// or the file is of another network.
Task load_task(const TaskOptions& options, const std::string& data_folder, uint64_t seed);

/// The pictures that the curve over the epochs shows, and what they are called.
struct WatchedPictures {
  std::string name;
  data::Dataset pictures;
};
/// Those held out of the training set, or the test set if the curve may use it, or else training pictures,
/// not changed at random.
WatchedPictures watched_pictures(const TaskOptions& options, const Task& task, bool test_curve);

}  // namespace stairgrad::examples

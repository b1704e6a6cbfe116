// The options of ptq, and what they ask of the engine.
#pragma once

#include "../../quant/ptq/recipes.h"
#include "../common/deployment.h"
#include "../common/task.h"

namespace stairgrad::examples {

struct Settings {
  CommonOptions common;
  TaskOptions task;
  std::string method = "qdrop", preset, range = "mse", granularity = "channel", skip = "shared", policy;
  int w_bits = 4, a_bits = 4, seeds = 1;
  int64_t calib = 1024, iterations = 2000, batch = 32, memory = 4096;
  bool calib_augment = false, calib_from_test = false, no_host = false;
  DeploymentOptions deployment;
  double lr_rounding = 0, lr_step = 0, rounding_weight = 0.01, warmup = 0.2, keep_input = -1,
         keep_activation = -1;
  double lambda_rec = 1, prediction = -1, prediction_temperature = 4, direct_weight = 1;
  bool border = false, without_replacement = false, equalise = false, bias_correction = false;
  int64_t correction_steps = -1, evolve = 0;
  double correction_weight = 50;
  std::string direct = "none", correction_cache, tail = "f32";
  // CL-Calib
  bool clcalib = false, reweight = false, centre = false, bank = false, cl_no_drop = false;
  std::string critic = "B", mapping = "tail", negatives = "duplicate";
  double tau = 0.1, lambda = -1;
  Value values;

  void parse(int argc, char** argv);

  /// Whether anything is added to the plain method.
  bool has_additions() const {
    return clcalib || lambda_rec != 1 || prediction >= 0 || direct != "none" || evolve > 0 || border;
  }

  quant::ContrastiveOptions contrastive() const;
  /// Of the method; if not `plain`, with what is added to it.
  quant::ReconstructionOptions recipe(uint64_t seed, bool plain) const;
};

}  // namespace stairgrad::examples

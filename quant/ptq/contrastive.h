// CL-Calib: the mutual information between float and quantized activations, by a contrastive task.
#pragma once

#include <string>
#include <vector>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"

namespace stairgrad::quant {

/// How similarities become a loss.
enum class Critic {
  A,  ///< h = e / (e + N / M) with e = exp(s / tau): noise contrastive estimation, sum over negatives
  B,  ///< softplus(-s_ii / tau) + mean softplus(s_ij / tau)
  C   ///< InfoNCE: logsumexp_j(s_ij / tau) - s_ii / tau
};
/// What takes a block's output to where images are compared.
enum class Mapping {
  tail,     ///< the frozen rest of the float network, to the logits (the paper's)
  gap,      ///< the mean of each channel
  flatten,  ///< all of it
  linear    ///< a projection of the mean to 128 numbers that is trained along
};
Critic parse_critic(const std::string& name);
Mapping parse_mapping(const std::string& name);
std::string to_string(Critic critic);
std::string to_string(Mapping mapping);

struct ContrastiveOptions {
  Critic critic = Critic::B;
  Mapping mapping = Mapping::tail;
  double temperature = 0.1;
  double weight = 1;             ///< lambda of the sum of losses; critic C is usually run with 0.1
  bool mask_duplicates = true;   ///< the same image twice in a batch is no negative
  bool mask_prediction = false;  ///< nor are images of which the float network says the same class
  double mask_similarity = 2;    ///< nor those whose float features are more similar than that
  bool reweight = false;         ///< negatives count 1 - s of their float features
  bool centre = false;           ///< logits minus their mean, which softmax does not see
  bool bank = false;             ///< negatives are all calibration images, not those of the batch
  bool drop = true;              ///< the quantized path keeps the drop of its host's activations
};

/// u / max(|u|, 1e-6) of each row; rows below that have no gradient. `centre` subtracts each row's mean
/// first.
Tensor normalised_features(const Tensor& u, bool centre = false);

/// What a row is compared with: `weights` (B, K) of the negatives, 0 for those that do not count, and the
/// column of the positive of each row.
struct Comparison {
  Array weights;
  Array positive;  ///< s32 (B, 1)
};
/// The comparison of images `rows` with images `columns` (numbers of calibration images) by the options'
/// masks. `features` (N, d) are normalised float features of all images, `classes` (N) the float network's
/// predictions; without features, masks that need them must be off.
Comparison compare_images(const std::vector<int64_t>& rows, const std::vector<int64_t>& columns,
                          const ContrastiveOptions& options, const Array& features,
                          const std::vector<int32_t>& classes);

/// The loss of similarities s (B, K), rows of the quantized network; `images` is M of critic A, whose N is
/// the number of negatives. Finite for a batch of 1, which has no negatives: the positive part (A, B) or 0
/// (C).
Tensor contrastive_loss(const Tensor& similarity, const Comparison& comparison,
                        const ContrastiveOptions& options, int64_t images);

/// What the features of a batch look like.
struct FeatureStatistics {
  double positive = 0, negative = 0;  ///< mean cosines
  int64_t images = 0;
  double spread = 0;  ///< standard deviation of the directions over the batch: 0 if all are one, at most 1
  double rank = 0;    ///< effective: exp of the entropy of the singular values
  double scale = 0;   ///< mean |u_q| / |u_f|, which the cosine does not see
  bool collided() const { return images > 1 && spread < 1e-3; }
};
FeatureStatistics feature_statistics(const Array& quantized, const Array& floating);
/// Mean cosine of different images' features (N, d): above 0.95, as with few classes or collapsed logits,
/// contrast is noise.
double mean_similarity(const Array& features);

}  // namespace stairgrad::quant

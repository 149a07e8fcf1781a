// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/data/micro_batch.h"
#include "worker/model/lm_head.h"

namespace temper {

class TrainableModel;

// S: rows of a micro-batch that the loss looks at, document after document.
struct ScoredDocuments {
  // Document d has rows [starts[d], starts[d + 1]); documents + 1 entries.
  std::vector<int64_t> starts;
  // Log-probabilities under the objective's reference, fp32 [S]; undefined without.
  at::Tensor reference_S = {};
  // Of an objective with a teacher, that one's hidden states, its final norm included [S, its D]; else undefined.
  at::Tensor teacher_SD = {};
  // What the micro-batch has of a teacher (MicroBatch::teacher). Refers to it.
  const TeacherTokens* stored_teacher = nullptr;

  int64_t size() const { return static_cast<int64_t>(starts.size()) - 1; }
};

// What a loss compares the model with.
enum class Reference {
  kNone,
  kWithoutAdapters,  // the model as it is when its adapters are left away
  kStored,           // what the micro-batch says (MicroBatch::reference_S)
};

// Scored tokens of a micro-batch.
double CountScored(const MicroBatch& batch);

// What a micro-batch adds to its step.
struct StepShare {
  double loss = 0;
  std::vector<double> sums;      // see Objective::Figures; none for a micro-batch that no loss looks at
  std::vector<double> maxima{};  // of which the largest of all micro-batches and ranks counts: see Objective::Extremes

  StepShare& operator+=(const StepShare& other);
};

struct ObjectiveResult {
  StepShare share;
  at::Tensor grad_hidden_SD;
};

// A loss of the scored rows of a micro-batch.
//
// All losses are sums over the whole step divided by one number, the step's `normalizer`: micro-batches, packing and
// ranks then change nothing. It is the sum of Count() over the step.
class Objective {
 public:
  virtual ~Objective() = default;

  // How much the micro-batch has of what the loss is a mean over.
  virtual double Count(const MicroBatch& batch) const = 0;

  virtual Reference reference() const { return Reference::kNone; }
  // A model that reads the micro-batch as well, and whose weights of the ends are there when the loss is computed;
  // null: none.
  virtual TrainableModel* teacher() const { return nullptr; }

  // Loss and gradients; the head's own gradient is added to its buffer.
  virtual ObjectiveResult Differentiate(LmHead& head, const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                        const ScoredDocuments& documents, double normalizer) const = 0;
  // The loss alone.
  virtual StepShare Measure(const LmHead& head, const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                            const ScoredDocuments& documents, double normalizer) const = 0;

  virtual size_t num_sums() const { return 0; }
  // What is measured beside the loss, by name, from the sums of a whole step or validation.
  virtual std::map<std::string, double> Figures(const std::vector<double>& sums) const { return {}; }

  virtual size_t num_maxima() const { return 0; }
  // The same from the maxima.
  virtual std::map<std::string, double> Extremes(const std::vector<double>& maxima) const { return {}; }
};

// A loss that is a function of the log-probabilities of given tokens. One pass over the logits where their coefficients
// are known beforehand, else two.
class LogprobObjective : public Objective {
 public:
  struct Evaluation {
    double loss = 0;               // this micro-batch's share
    at::Tensor coefficient_S;      // ∂loss/∂logprob, fp32
    std::vector<double> sums;      // num_sums() of them
    std::vector<double> maxima{};  // num_maxima() of them
  };

  virtual Evaluation Evaluate(const at::Tensor& logprobs_S, const ScoredDocuments& documents,
                              double normalizer) const = 0;

  // The coefficients, when they do not depend on the log-probabilities: the head then needs one pass, not two.
  virtual std::optional<at::Tensor> KnownCoefficients(int64_t rows, double normalizer) const { return std::nullopt; }

  // What is added for the distribution of each row; not in Measure().
  virtual ops::DistributionPenalty Penalty(double normalizer) const { return {}; }

  ObjectiveResult Differentiate(LmHead& head, const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                                const ScoredDocuments& documents, double normalizer) const final;
  StepShare Measure(const LmHead& head, const at::Tensor& hidden_SD, const at::Tensor& targets_S,
                    const ScoredDocuments& documents, double normalizer) const final;
};

// Of nothing.
std::vector<double> NoMaxima(size_t count);
// Keeps the larger of two, or what is not a number.
void KeepMaximum(double other, double& maximum);
// The same of each two; there are as many of either, or none.
void KeepMaxima(const std::vector<double>& of_others, std::vector<double>& maxima);

// Cross-entropy: −Σ logprob / normalizer, a mean over the scored tokens. With label smoothing ε (Szegedy et al. 2016)
// the target's part is 1 − ε and the vocabulary's mean ε; z-loss adds z_loss · log²Z a token.
class SupervisedObjective : public LogprobObjective {
 public:
  explicit SupervisedObjective(double label_smoothing = 0, double z_loss = 0)
      : label_smoothing_(label_smoothing), z_loss_(z_loss) {}

  double Count(const MicroBatch& batch) const override { return CountScored(batch); }
  ops::DistributionPenalty Penalty(double normalizer) const override {
    return {label_smoothing_ / normalizer, z_loss_ / normalizer};
  }
  Evaluation Evaluate(const at::Tensor& logprobs_S, const ScoredDocuments& documents, double normalizer) const override;
  std::optional<at::Tensor> KnownCoefficients(int64_t rows, double normalizer) const override;

 private:
  double label_smoothing_;
  double z_loss_;
};

}  // namespace temper

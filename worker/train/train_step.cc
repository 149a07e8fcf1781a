// SPDX-License-Identifier: Apache-2.0
#include "worker/train/train_step.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/model/gradient.h"
#include "worker/train/phase_watch.h"

namespace temper {
namespace {

template <typename T>
at::Tensor ToTensor(const std::vector<T>& values, at::ScalarType dtype) {
  // The clone makes it own its memory; the batch may go.
  return at::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())}, dtype).clone();
}

BatchContext MakeContext(const TrainableModel& model, const MicroBatch& batch) {
  return model.MakeContext(ToTensor(batch.tokens_T, at::kLong).to(model.device()),
                           ToTensor(batch.positions_T, at::kLong).to(model.device()), batch.document_starts);
}

// The rows that a loss looks at, and the tokens that should follow them; both int64.
struct ScoredRows {
  at::Tensor rows_S, targets_S;

  int64_t size() const { return rows_S.size(0); }
};

ScoredRows FindScored(const MicroBatch& batch, at::Device device) {
  const at::Tensor rows_S = ToTensor(batch.loss_mask_T, at::kByte).nonzero().squeeze(1);
  const at::Tensor targets_S = ToTensor(batch.targets_T, at::kLong).index_select(0, rows_S);
  return {rows_S.to(device), targets_S.to(device)};
}

// Whose rows they are.
std::vector<int64_t> ScoredStarts(const MicroBatch& batch) {
  std::vector<int64_t> starts = {0};
  for (size_t i = 0; i + 1 < batch.document_starts.size(); ++i) {
    const auto mask = batch.loss_mask_T.begin();
    starts.push_back(starts.back() +
                     std::count(mask + batch.document_starts[i], mask + batch.document_starts[i + 1], 1));
  }
  return starts;
}

// The two ways through a model. What is given is called for each part, between the gathering of its weights (where
// they are not in the model always) and their release. Ranks that share weights all go the same way, step by step, for
// every micro-batch, even one that they have nothing to compute for.
constexpr int kEnds = UnitWeights::kEnds;

template <typename EmbedFn, typename UnitFn>
void WalkForward(const TrainableModel& model, bool backward_follows, EmbedFn embed, UnitFn forward_unit) {
  UnitWeights* const weights = model.unit_weights();
  const int units = model.num_units();
  const int first_trained = FirstTrainedUnit(model);
  if (weights != nullptr) weights->Gather(kEnds, units > 0 ? 0 : UnitWeights::kNone);
  embed();
  if (weights != nullptr) weights->Release(kEnds, /*again=*/true);
  for (int unit = 0; unit < units; ++unit) {
    if (weights != nullptr) weights->Gather(unit, unit + 1 < units ? unit + 1 : kEnds);
    forward_unit(unit);
    if (weights != nullptr) weights->Release(unit, backward_follows && unit >= first_trained);
  }
}

template <typename HeadFn, typename UnitFn, typename EmbedFn>
void WalkBackward(const TrainableModel& model, HeadFn head, UnitFn backward_unit, EmbedFn embed) {
  UnitWeights* const weights = model.unit_weights();
  const int first_trained = FirstTrainedUnit(model);
  const auto before = [&](int unit) { return unit > first_trained ? unit - 1 : UnitWeights::kNone; };
  const auto begin = [&](int unit, int next) {
    if (weights == nullptr) return;
    weights->Gather(unit, next);
    weights->BeginGradients(unit);
  };
  const auto end = [&](int unit) {
    if (weights == nullptr) return;
    weights->Release(unit, /*again=*/false);
    weights->EndGradients(unit);
  };
  begin(kEnds, before(model.num_units()));
  head();
  for (int unit = model.num_units() - 1; unit >= first_trained; --unit) {
    begin(unit, before(unit));
    backward_unit(unit);
    end(unit);
  }
  embed();  // an adapter on the embedding looks at its weights once more
  end(kEnds);
}

template <typename EmbedFn, typename UnitFn, typename HeadFn>
void WalkInference(const TrainableModel& model, EmbedFn embed, UnitFn forward_unit, HeadFn head) {
  UnitWeights* const weights = model.unit_weights();
  WalkForward(model, /*backward_follows=*/false, embed, forward_unit);
  if (weights != nullptr) weights->Gather(kEnds, UnitWeights::kNone);
  head();
  if (weights != nullptr) weights->Release(kEnds, /*again=*/false);
}

constexpr auto kNothing = [](auto...) {};

// A unit's recorded forward pass, cut off from its neighbours.
struct UnitRecord {
  at::Tensor input_TD;   // a leaf
  at::Tensor output_TD;  // with its graph
  Routing routing;
};

std::vector<at::Tensor> TrainableWeights(const std::vector<Parameter*>& parameters) {
  std::vector<at::Tensor> weights;
  for (const Parameter* parameter : parameters) {
    if (parameter->trainable) weights.push_back(parameter->weight);
  }
  return weights;
}

// The loss for using experts evenly: coefficient · E · Σ_e f_e·p_e, where f_e is the share of all rows (tokens times
// units that have experts) that chose expert e and p_e the mean of its probability. As transformers has it, over one
// pack; a pack counts by its share of what the loss is a mean over, so that the number of packs changes nothing.
struct BalanceLoss {
  double loss = 0;
  at::Tensor grad_E;  // ∂loss/∂probability of each row; undefined without such a loss
};

BalanceLoss Balance(const std::vector<UnitRecord>& records, double coefficient) {
  const at::NoGradGuard no_grad;
  at::Tensor tokens_E, probabilities_E;
  int64_t rows = 0;
  for (const UnitRecord& record : records) {
    const Routing& routing = record.routing;
    if (!routing.tokens_E.defined()) continue;
    const at::Tensor sum_E = routing.probabilities_TE.sum(0);
    tokens_E = tokens_E.defined() ? tokens_E + routing.tokens_E : routing.tokens_E;
    probabilities_E = probabilities_E.defined() ? probabilities_E + sum_E : sum_E;
    rows += routing.probabilities_TE.size(0);
  }
  if (rows == 0) return {};
  const double factor = coefficient * static_cast<double>(tokens_E.size(0)) / static_cast<double>(rows);
  const at::Tensor share_E = tokens_E.to(at::kFloat) / static_cast<double>(rows);
  return {factor * (share_E * probabilities_E).sum().item<double>(), share_E * factor};
}

// Backpropagates through one recorded piece: adds the gradients of its parameters and returns that of its input,
// undefined when the input wants none.
at::Tensor Backpropagate(const UnitRecord& record, const std::vector<Parameter*>& parameters,
                         const at::Tensor& grad_output, const at::Tensor& grad_balance_E = {}) {
  std::vector<at::Tensor> inputs = TrainableWeights(parameters);
  if (record.input_TD.requires_grad()) inputs.push_back(record.input_TD);
  if (inputs.empty()) return {};
  std::vector<at::Tensor> outputs = {record.output_TD}, grad_outputs = {grad_output};
  const at::Tensor& probabilities_TE = record.routing.probabilities_TE;
  if (grad_balance_E.defined() && probabilities_TE.defined() && probabilities_TE.requires_grad()) {
    outputs.push_back(probabilities_TE);
    grad_outputs.push_back(grad_balance_E.expand_as(probabilities_TE));
  }
  // Undefined where a linear map adds to its buffer itself (worker/ops/linear.h).
  const std::vector<at::Tensor> grads = torch::autograd::grad(outputs, inputs, grad_outputs, std::nullopt,
                                                              /*create_graph=*/false, /*allow_unused=*/true);
  size_t next = 0;
  for (Parameter* parameter : parameters) {
    if (parameter->trainable) AccumulateGradient(*parameter, grads[next++]);
  }
  return record.input_TD.requires_grad() ? grads.back() : at::Tensor();
}

// Null without a teacher, and where it is whole.
UnitWeights* TeacherWeights(const Objective& objective) {
  return objective.teacher() == nullptr ? nullptr : objective.teacher()->unit_weights();
}

// For the other ranks, where this one has nothing to compute with the teacher's head.
void GatherTeacher(const Objective& objective) { const GatheredUnit ends(TeacherWeights(objective), kEnds); }

// The loss of the scored rows, and all of the way back.
StepShare Backward(TrainableModel& model, const Objective& objective, const MicroBatch& batch, double normalizer,
                   const BatchContext& context, const at::Tensor& hidden_TD, const ScoredRows& scored,
                   const ScoredDocuments& documents, std::vector<UnitRecord>& records) {
  StepShare share;
  BalanceLoss balance;
  at::Tensor grad_TD;  // of the unit's output; undefined where nobody wants it
  const auto head = [&] {
    // Rows that no loss looks at go no further.
    UnitRecord final_record;
    final_record.input_TD = hidden_TD.detach().index_select(0, scored.rows_S).requires_grad_(hidden_TD.requires_grad());
    final_record.output_TD = model.FinishHidden(final_record.input_TD);
    const ObjectiveResult result = [&] {
      RECORD_USER_SCOPE("LM head and loss");
      const GatheredUnit teacher(TeacherWeights(objective), kEnds);
      return objective.Differentiate(model.head(), final_record.output_TD.detach(), scored.targets_S, documents,
                                     normalizer);
    }();
    balance = Balance(records, model.balance_coefficient() * objective.Count(batch) / normalizer);
    share = result.share;
    share.loss += balance.loss;
    if (!final_record.output_TD.requires_grad()) return;
    const at::Tensor grad_SD = Backpropagate(final_record, model.final_parameters(), result.grad_hidden_SD);
    if (grad_SD.defined()) grad_TD = at::zeros_like(hidden_TD).index_copy_(0, scored.rows_S, grad_SD);
  };
  const auto backward_unit = [&](int unit) {
    RECORD_USER_SCOPE(absl::StrCat("backward, unit ", unit));
    grad_TD = Backpropagate(records[unit], model.unit_parameters(unit), grad_TD, balance.grad_E);
    records[unit] = {};  // its activations go as soon as they are used
  };
  const auto embed = [&] {
    if (model.embedding_trainable()) model.EmbedBackward(context, grad_TD);
  };
  WalkBackward(model, head, backward_unit, embed);
  return share;
}

// What `head` makes of the hidden states, final norm included. Nothing is recorded.
template <typename HeadFn>
at::Tensor Infer(TrainableModel& model, const MicroBatch& batch, HeadFn head) {
  const at::NoGradGuard no_grad;
  const BatchContext context = MakeContext(model, batch);
  at::Tensor hidden_TD, result;
  const auto embed = [&] { hidden_TD = model.Embed(context); };
  const auto forward_unit = [&](int unit) {
    hidden_TD = model.ForwardUnit(unit, hidden_TD, context, /*routing=*/nullptr);
  };
  WalkInference(model, embed, forward_unit, [&] { result = head(model.FinishHidden(hidden_TD)); });
  return result;
}

// While it lives, the model computes as if it had no adapters.
class WithoutAdapters {
 public:
  explicit WithoutAdapters(const TrainableModel& model) : adapters_(model.adapters()) {
    TORCH_CHECK(!adapters_.empty(), "a model without adapters is not what it was: it can't be its own reference");
    Enable(false);
  }
  ~WithoutAdapters() { Enable(true); }
  WithoutAdapters(const WithoutAdapters&) = delete;
  WithoutAdapters& operator=(const WithoutAdapters&) = delete;

 private:
  void Enable(bool enabled) {
    for (LoraAdapter* adapter : adapters_) adapter->enabled = enabled;
  }

  const std::vector<LoraAdapter*>& adapters_;
};

// Hidden states of the rows that a loss looks at, final norm included: [S, D]. Nothing is recorded.
at::Tensor ScoredHidden(TrainableModel& model, const MicroBatch& batch) {
  if (batch.num_tokens() == 0) {
    WalkInference(model, kNothing, kNothing, kNothing);
    return {};
  }
  const ScoredRows scored = FindScored(batch, model.device());
  return Infer(model, batch, [&](const at::Tensor& hidden_TD) { return hidden_TD.index_select(0, scored.rows_S); });
}

ScoredDocuments DescribeDocuments(TrainableModel& model, const MicroBatch& batch, const Objective& objective) {
  ScoredDocuments documents{.starts = ScoredStarts(batch), .stored_teacher = &batch.teacher};
  if (objective.teacher() != nullptr) documents.teacher_SD = ScoredHidden(*objective.teacher(), batch);
  switch (objective.reference()) {
    case Reference::kNone:
      break;
    case Reference::kWithoutAdapters: {
      const WithoutAdapters reference(model);
      documents.reference_S = ScoredLogprobs(model, batch);
      break;
    }
    case Reference::kStored:
      documents.reference_S = ToTensor(batch.reference_S, at::kFloat);
      TORCH_CHECK(documents.reference_S.size(0) == documents.starts.back(), "the micro-batch has no reference");
      break;
  }
  return documents;
}

}  // namespace

StepShare ForwardBackward(TrainableModel& model, const MicroBatch& batch, const Objective& objective, double normalizer,
                          PhaseWatch* watch) {
  const auto end = [watch](double StepPhases::* phase) {
    if (watch != nullptr) watch->Lap(phase);
  };
  const ScoredDocuments documents = DescribeDocuments(model, batch, objective);
  const ScoredRows scored = FindScored(batch, model.device());
  if (scored.size() == 0) {
    WalkForward(model, /*backward_follows=*/true, kNothing, kNothing);
    end(&StepPhases::forward);
    WalkBackward(model, [&] { GatherTeacher(objective); }, kNothing, kNothing);
    end(&StepPhases::backward);
    return {};
  }
  const BatchContext context = MakeContext(model, batch);
  if (model.unit_weights() == nullptr) {  // shards have theirs from the start
    for (Parameter* parameter : model.parameters()) {
      if (parameter->trainable) GradientBuffer(*parameter);
    }
  }

  // Whether anything below a unit is trained; if not, its input needs no gradient.
  bool gradient_wanted = model.embedding_trainable();
  at::Tensor hidden_TD;
  std::vector<UnitRecord> records;
  const auto forward_unit = [&](int unit) {
    RECORD_USER_SCOPE(absl::StrCat("forward, unit ", unit));
    UnitRecord record;
    record.input_TD = hidden_TD.detach().requires_grad_(gradient_wanted);
    record.output_TD = model.ForwardUnit(unit, record.input_TD, context, &record.routing);
    hidden_TD = record.output_TD;
    gradient_wanted = hidden_TD.requires_grad();
    records.push_back(std::move(record));
  };
  WalkForward(model, /*backward_follows=*/true, [&] { hidden_TD = model.Embed(context); }, forward_unit);
  end(&StepPhases::forward);
  const StepShare share = Backward(model, objective, batch, normalizer, context, hidden_TD, scored, documents, records);
  end(&StepPhases::backward);
  return share;
}

StepShare Evaluate(TrainableModel& model, const MicroBatch& batch, const Objective& objective, double normalizer) {
  const ScoredDocuments documents = DescribeDocuments(model, batch, objective);
  if (batch.num_tokens() == 0) {
    WalkInference(model, kNothing, kNothing, [&] { GatherTeacher(objective); });
    return {};
  }
  const ScoredRows scored = FindScored(batch, model.device());
  StepShare share;
  Infer(model, batch, [&](const at::Tensor& hidden_TD) {
    const GatheredUnit teacher(TeacherWeights(objective), kEnds);
    share = objective.Measure(model.head(), hidden_TD.index_select(0, scored.rows_S), scored.targets_S, documents,
                              normalizer);
    return at::Tensor();
  });
  return share;
}

at::Tensor ForwardHidden(TrainableModel& model, const MicroBatch& batch) {
  return Infer(model, batch, [](const at::Tensor& hidden_TD) { return hidden_TD; });
}

at::Tensor FirstLogits(TrainableModel& model, const MicroBatch& batch, int64_t rows) {
  return Infer(model, batch, [&](const at::Tensor& hidden_TD) {
    return model.head().Logits(hidden_TD.narrow(0, 0, std::min(rows, hidden_TD.size(0))));
  });
}

at::Tensor ScoredLogprobs(TrainableModel& model, const MicroBatch& batch) {
  if (batch.num_tokens() == 0) {
    WalkInference(model, kNothing, kNothing, kNothing);
    return at::empty({0}, at::kFloat);
  }
  const ScoredRows scored = FindScored(batch, model.device());
  return Infer(model, batch, [&](const at::Tensor& hidden_TD) {
    return model.head().TokenLogprobs(hidden_TD.index_select(0, scored.rows_S), scored.targets_S);
  });
}

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
// Runs the engine on given tokens and writes what it computed, for tests that compare it with transformers.
//
//   parity_probe logits    --model DIR --in F --out F [--precision fp32|bf16]
//     in:  ids [T], optional document_starts [N+1]         out: logits [T, V] fp32
//   parity_probe gradients --model DIR --in F --out F [--two-pass]
//     in:  B.ids, B.targets, B.mask [T], B.document_starts for each micro-batch B = 0, 1, …
//     out: loss [1] fp64, and the gradient of every tensor under its HF name, fp32; figures.NAME [1] fp64
//     with --preference LOSS [--beta X] [--label-smoothing X] [--length-normalized] [--margin X], also of `train`,
//     documents 2p and 2p + 1 of a micro-batch are pair p
//     with --teacher DIR [--divergence forward_kl|reverse_kl|jsd] [--temperature X] [--teacher-weight X]
//     [--sft-weight X], also of `train`, distillation; with --stored-teacher instead from B.teacher_tokens and
//     B.teacher_logprobs [S, K] fp32, of the scored tokens
//     with --reward [--centering X], of every command, the model is a reward model; the mask has one row a document
//   parity_probe train     --model DIR --in F --out F --learning-rate X [--weight-decay X] [--max-grad-norm X]
//     in:  as above; micro-batch B is step B               out: losses [steps] fp64, and the weights under HF names
//   parity_probe adapter   --model DIR --out DIR --rank N --alpha X [--rslora] [--dora] [--vllm] --targets T…
//   [--modules-to-save M…]
//     writes a PEFT adapter for the model, its B drawn at random
//   parity_probe merged    --model DIR --lora DIR --out DIR
//     writes the model with the adapter in its weights
//   parity_probe serve     takes such commands from stdin (tests/command_server.h)
// With --hf, transformers computes (worker/hf_backend), and what is to be known of that goes to stderr.
// With --lora DIR, an adapter is read into the model: gradients are then those of its file's tensors, under their
// names.
// --dropout X drops inputs of adapters, drawn from torch's generator seeded with 0. All integers are int64.
//
// With --world N, gradients and train run on N ranks of this host, each a process, which take micro-batches in turn;
// train then has --micro-batches M in a step, and gives the adapter's tensors, if there is one. Out also come
// bytes_sent [1] by one rank, peak_bytes [N] of each, whole_bytes and kept_bytes [1]: weights of the model, and what a
// rank keeps of them between two steps.
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "common/storage/publication.h"
#include "tests/command_server.h"
#include "tests/parity/probe_gang.h"
#include "worker/checkpoint/hf_export.h"
#include "worker/checkpoint/native_model.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/families/tensor_rule.h"
#include "worker/model/gradient.h"
#include "worker/ops/vector_math.h"
#include "worker/train/adamw.h"
#include "worker/train/distillation_objective.h"
#include "worker/train/hf_repository_backend.h"
#include "worker/train/objective.h"
#include "worker/train/plan_adapters.h"
#include "worker/train/preference_objective.h"
#include "worker/train/reward_objective.h"
#include "worker/train/reward_source.h"
#include "worker/train/teacher.h"
#include "worker/train/train_step.h"

namespace temper {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

void CheckOk(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "parity_probe: %s\n", std::string(status.message()).c_str());
  std::exit(1);
}

template <typename T>
T Value(absl::StatusOr<T> value) {
  CheckOk(value.status());
  return *std::move(value);
}

Tensors ReadTensors(const std::string& path) {
  const auto file = Value(SafetensorsFile::Open(path));
  Tensors tensors;
  for (const SafetensorsEntry& entry : file->header().entries) {
    tensors[entry.name] = Value(file->Tensor(entry)).clone();
  }
  return tensors;
}

void WriteTensors(const std::string& path, const Tensors& tensors) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, tensor] : tensors) {
    entries.push_back({name, tensor.scalar_type() == at::kDouble ? "F64" : "F32", tensor.sizes().vec()});
  }
  std::ofstream out(path, std::ios::binary);
  out << BuildSafetensorsHeader(entries, {});
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor contiguous = tensor.contiguous();
    out.write(static_cast<const char*>(contiguous.data_ptr()), contiguous.nbytes());
  }
}

std::vector<int64_t> ToVector(const at::Tensor& tensor) {
  return {tensor.data_ptr<int64_t>(), tensor.data_ptr<int64_t>() + tensor.numel()};
}

MicroBatch MakeBatch(const Tensors& in, const std::string& prefix) {
  MicroBatch batch;
  batch.tokens_T = ToVector(in.at(prefix + "ids"));
  const int64_t tokens = batch.num_tokens();
  batch.capacity = tokens;
  batch.document_starts = {0, tokens};
  if (const auto starts = in.find(prefix + "document_starts"); starts != in.end()) {
    batch.document_starts = ToVector(starts->second);
  }
  for (size_t i = 0; i + 1 < batch.document_starts.size(); ++i) {
    for (int64_t position = 0; position < batch.document_starts[i + 1] - batch.document_starts[i]; ++position) {
      batch.positions_T.push_back(position);
    }
  }
  if (const auto targets = in.find(prefix + "targets"); targets != in.end()) {
    batch.targets_T = ToVector(targets->second);
    for (const int64_t scored : ToVector(in.at(prefix + "mask"))) batch.loss_mask_T.push_back(scored != 0);
  }
  if (const auto tokens = in.find(prefix + "teacher_tokens"); tokens != in.end()) {
    const std::vector<int64_t> ids = ToVector(tokens->second);
    const at::Tensor& logprobs = in.at(prefix + "teacher_logprobs");
    TeacherTokens& teacher = batch.teacher;
    teacher.tokens.assign(ids.begin(), ids.end());
    teacher.logprobs.assign(logprobs.const_data_ptr<float>(), logprobs.const_data_ptr<float>() + logprobs.numel());
    for (int64_t row = 0; row < logprobs.size(0); ++row) teacher.starts.push_back((row + 1) * logprobs.size(1));
  }
  return batch;
}

std::vector<MicroBatch> MakeBatches(const Tensors& in) {
  std::vector<MicroBatch> batches;
  for (int i = 0; in.contains(std::to_string(i) + ".ids"); ++i) {
    batches.push_back(MakeBatch(in, std::to_string(i) + "."));
  }
  return batches;
}

// Rows of each view's `part` (its gradient or its master) under HF names.
template <typename PartOf>
Tensors ByHfName(const NativeRepository& native, const TrainableModel& model, PartOf part_of) {
  std::vector<WeightShape> shapes;
  for (const WeightView& view : model.views()) shapes.push_back({view.name, view.shape()});
  Tensors out;
  for (const TensorBinding& binding : Value(BindTensors(native.family->rules, native.config, shapes))) {
    if (binding.optional_copy) continue;
    out[binding.hf_name] = JoinTensor(binding, [&](size_t part) { return part_of(model.views()[part]); });
  }
  return out;
}

// An objective that hides its coefficients, so that the head's two-pass form is taken.
class TwoPassObjective : public SupervisedObjective {
 public:
  std::optional<at::Tensor> KnownCoefficients(int64_t, double) const override { return std::nullopt; }
  Evaluation Evaluate(const at::Tensor& logprobs_S, const ScoredDocuments&, double normalizer) const override {
    Evaluation evaluation{-logprobs_S.sum(at::kDouble).item<double>() / normalizer, {}};
    evaluation.coefficient_S = at::full_like(logprobs_S, -1.0 / normalizer);
    return evaluation;
  }
};

struct Arguments {
  std::string model, in, out, precision = "fp32";
  LoraOptions lora;
  std::optional<PreferenceLoss> preference;
  PreferenceOptions pairs;
  DistillationOptions distillation;
  bool reward = false;
  RewardOptions rewards;
  bool hf = false, two_pass = false, vllm = false, stored_teacher = false;
  double learning_rate = 0, weight_decay = 0, max_grad_norm = 0;
  int world = 1;
  bool keep_weights = false;
  size_t micro_batches = 1;

  AdapterFormat format() const { return vllm ? AdapterFormat::kVllm : AdapterFormat::kPeft; }
};

std::unique_ptr<Objective> MakeObjective(const Arguments& arguments, TrainableModel* teacher) {
  if (arguments.two_pass) return std::make_unique<TwoPassObjective>();
  if (teacher != nullptr || arguments.stored_teacher) {
    return std::make_unique<DistillationObjective>(arguments.distillation, teacher);
  }
  if (arguments.reward) return std::make_unique<RewardObjective>(arguments.rewards);
  if (!arguments.preference) return std::make_unique<SupervisedObjective>();
  PreferenceOptions pairs = arguments.pairs;
  pairs.loss = *arguments.preference;
  return std::make_unique<PreferenceObjective>(pairs, Reference::kWithoutAdapters);
}

at::Tensor Scalar64(std::vector<double> values) {
  return at::tensor(at::ArrayRef<double>(values), at::TensorOptions(at::kDouble));
}

void Logits(const Arguments& arguments, TrainableModel& model) {
  const MicroBatch batch = MakeBatch(ReadTensors(arguments.in), "");
  const at::Tensor hidden_TD = ForwardHidden(model, batch);
  WriteTensors(arguments.out, {{"logits", model.head().Logits(hidden_TD)}});
}

// As the adapter's file has them.
template <typename PartOf>
Tensors ByAdapterName(const AdapterPlan& plan, const NativeRepository& native, const TrainableModel& model,
                      PartOf part_of) {
  Tensors out;
  for (const AdapterTensor& tensor : Value(TensorsOfPlan(plan, native, model, plan.start->format()))) {
    out[tensor.name] = tensor.Join(part_of);
  }
  return out;
}

template <typename PartOf>
Tensors ByName(const AdapterPlan* plan, const NativeRepository& native, const TrainableModel& model, PartOf part_of) {
  return plan != nullptr ? ByAdapterName(*plan, native, model, part_of) : ByHfName(native, model, part_of);
}

at::Tensor GradientOf(const WeightView& view) { return GradientBuffer(*view.parameter).narrow(0, view.row, view.rows); }

void Gradients(const Arguments& arguments, const NativeRepository& native, const AdapterPlan* plan,
               TrainableModel& model, const Objective& objective, ProbeGang& gang) {
  at::manual_seed(0);
  const std::vector<MicroBatch> batches = MakeBatches(ReadTensors(arguments.in));
  const StepShare share = gang.ForwardBackward(batches, objective);
  gang.BringGradientsTogether();
  Tensors out = ByName(plan, native, model, GradientOf);
  out["loss"] = Scalar64({share.loss});
  auto figures = objective.Figures(share.sums);
  figures.merge(objective.Extremes(share.maxima));
  for (const auto& [name, figure] : figures) out["figures." + name] = Scalar64({figure});
  if (gang.rank() == 0) WriteTensors(arguments.out, out);
}

void Train(const Arguments& arguments, const NativeRepository& native, const AdapterPlan* plan, TrainableModel& model,
           const Objective& objective, ProbeGang& gang) {
  AdamW optimizer(gang.parameters(), {.weight_decay = arguments.weight_decay});
  std::vector<double> losses;
  const std::vector<MicroBatch> all = MakeBatches(ReadTensors(arguments.in));
  for (size_t first = 0; first < all.size(); first += arguments.micro_batches) {
    const auto begin = all.begin() + static_cast<ptrdiff_t>(first);
    const std::vector<MicroBatch> batches(begin, begin + static_cast<ptrdiff_t>(arguments.micro_batches));
    ZeroGradients(gang.parameters());
    losses.push_back(gang.ForwardBackward(batches, objective).loss);
    optimizer.Step(arguments.learning_rate, ClipScale(gang.GradientNorm(), arguments.max_grad_norm));
  }
  Tensors out = gang.Figures();
  gang.BringWeightsTogether();
  out.merge(ByName(plan, native, model, LoadMaster));
  out["losses"] = Scalar64(losses);
  if (gang.rank() == 0) WriteTensors(arguments.out, out);
}

// Writes a directory at `path` with what `write` puts into it, which gets the store's name for it as well.
template <typename Write>
void Publish(const std::string& path, Write write) {
  const auto store = Value(ObjectStore::Open(std::filesystem::path(path).parent_path().string()));
  const std::string name = std::filesystem::path(path).filename().string();
  const auto publication = Value(Publication::Begin(*store, name, "probe", 1));
  write(*store, name, *publication);
  CheckOk(publication->Commit());
}

void Merged(const Arguments& arguments, const NativeRepository& native, TrainableModel& model) {
  model.MergeLora();
  Publish(arguments.out, [&](const ObjectStore&, const std::string&, Publication& publication) {
    CheckOk(ExportModel(*native.repository, *native.family, native.config, model.views(), {}, publication));
  });
}

void Adapter(const Arguments& arguments, const NativeRepository& native, const AdapterPlan& plan,
             const TrainableModel& model) {
  at::manual_seed(1);
  for (const LoraAdapter* adapter : model.adapters()) {
    const WeightView b = {"", const_cast<Parameter*>(&adapter->b_OR), 0, adapter->b_OR.weight.size(0)};
    StoreMaster(b, at::randn(b.shape()) * 0.1);
  }
  const auto tensors = Value(TensorsOfPlan(plan, native, model, arguments.format()));
  for (const AdapterTensor& tensor : tensors) {  // whole modules, and DoRA's lengths
    const bool factor = tensor.name.find(".lora_") != std::string::npos && !tensor.name.ends_with("magnitude_vector");
    if (factor) continue;
    for (const WeightView& part : tensor.parts) StoreMaster(part, LoadMaster(part) * 1.1);
  }
  Publish(arguments.out, [&](const ObjectStore& store, const std::string& name, Publication& publication) {
    CheckOk(ExportPeftAdapter(plan.ConfigIn(arguments.format()), tensors, publication));
    CheckOk(ProvePeftAdapter(store, name, tensors));
  });
}

void Say(const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }

int Main(int argc, char** argv) {
  Arguments arguments;
  const std::map<std::string, PreferenceLoss> losses = {{"sigmoid", PreferenceLoss::kSigmoid},
                                                        {"ipo", PreferenceLoss::kIpo},
                                                        {"hinge", PreferenceLoss::kHinge},
                                                        {"simpo", PreferenceLoss::kSimPo},
                                                        {"orpo", PreferenceLoss::kOrpo}};
  const std::map<std::string, ops::DivergenceKind> divergences = {{"forward_kl", ops::DivergenceKind::kForwardKl},
                                                                  {"reverse_kl", ops::DivergenceKind::kReverseKl},
                                                                  {"jsd", ops::DivergenceKind::kJsd}};
  CLI::App app("Runs the engine on given tokens and writes what it computed.");
  app.require_subcommand(1);
  for (const char* name : {"logits", "gradients", "train", "adapter", "merged"}) {
    CLI::App* command = app.add_subcommand(name);
    command->add_option("--model", arguments.model)->required();
    command->add_option("--in,--ids", arguments.in);
    command->add_option("--out", arguments.out)->required();
    command->add_option("--precision", arguments.precision);
    command->add_flag("--hf", arguments.hf);
    command->add_flag("--two-pass", arguments.two_pass);
    command->add_option("--preference", arguments.preference)->transform(CLI::CheckedTransformer(losses));
    command->add_option("--beta", arguments.pairs.beta);
    command->add_option("--label-smoothing", arguments.pairs.label_smoothing);
    command->add_flag("--length-normalized", arguments.pairs.length_normalized);
    command->add_option("--margin", arguments.pairs.margin);
    command->add_option("--teacher", arguments.distillation.teacher);
    command->add_flag("--stored-teacher", arguments.stored_teacher);
    command->add_option("--divergence", arguments.distillation.divergence.kind)
        ->transform(CLI::CheckedTransformer(divergences));
    command->add_option("--temperature", arguments.distillation.divergence.temperature);
    command->add_option("--teacher-weight", arguments.distillation.divergence.teacher_weight);
    command->add_option("--sft-weight", arguments.distillation.sft_weight);
    command->add_flag("--reward", arguments.reward);
    command->add_option("--centering", arguments.rewards.centering);
    command->add_flag("--vllm", arguments.vllm);
    command->add_option("--learning-rate", arguments.learning_rate);
    command->add_option("--weight-decay", arguments.weight_decay);
    command->add_option("--max-grad-norm", arguments.max_grad_norm);
    command->add_option("--world", arguments.world);
    command->add_flag("--keep-weights", arguments.keep_weights);
    command->add_option("--micro-batches", arguments.micro_batches);
    command->add_option("--lora", arguments.lora.adapter);
    command->add_option("--rank", arguments.lora.rank);
    command->add_option("--alpha", arguments.lora.alpha);
    command->add_option("--dropout", arguments.lora.dropout);
    command->add_flag("--rslora", arguments.lora.rslora);
    command->add_flag("--dora", arguments.lora.dora);
    command->add_option("--targets", arguments.lora.targets);
    command->add_option("--modules-to-save", arguments.lora.modules_to_save);
  }
  CLI11_PARSE(app, argc, argv);
  const ProbeRank rank = StartRanks(arguments.world);
  ops::InitializeVectorMath();
  TrainJob job = {.model_uri = arguments.model};
  const NativeRepository native = Value(arguments.hf ? OpenForTransformers(arguments.model, /*remote_code=*/false, Say)
                                        : arguments.reward ? OpenRewardSource(job)
                                                           : OpenNativeRepository(arguments.model));
  const at::ScalarType dtype = arguments.precision == "bf16" ? at::kBFloat16 : at::kFloat;
  if (!arguments.lora.adapter.empty() || app.got_subcommand("adapter")) job.lora = arguments.lora;
  const auto plan = Value(PlanAdapters(job, native));
  const auto options = plan != nullptr ? plan->ModelOptions(dtype, /*seed=*/0) : TransformerOptions{.dtype = dtype};
  const auto model = Value(LoadModel(native, options, /*ranks=*/nullptr)).model;
  if (plan != nullptr) CheckOk(LoadStart(*plan, native, *model));
  if (app.got_subcommand("adapter")) Adapter(arguments, native, *plan, *model);
  if (app.got_subcommand("merged")) Merged(arguments, native, *model);
  if (app.got_subcommand("logits")) Logits(arguments, *model);
  ProbeGang gang(rank, *model, {.reshard_after_forward = !arguments.keep_weights});
  std::unique_ptr<TrainableModel> teacher;
  if (const std::string& uri = arguments.distillation.teacher; !uri.empty()) {
    teacher = Value(LoadTransformer(Value(OpenNativeRepository(uri)), TeacherOptions(dtype)));
  }
  if (teacher != nullptr) gang.Shard(*teacher);
  const auto objective = MakeObjective(arguments, teacher.get());
  if (app.got_subcommand("gradients")) Gradients(arguments, native, plan.get(), *model, *objective, gang);
  if (app.got_subcommand("train")) Train(arguments, native, plan.get(), *model, *objective, gang);
  return rank.WaitForOthers();
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "serve") return temper::ServeCommands(argv[0], temper::Main);
  return temper::Main(argc, argv);
}

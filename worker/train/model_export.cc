// SPDX-License-Identifier: Apache-2.0
#include "worker/train/model_export.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/failure.h"
#include "common/fault_point.h"
#include "common/storage/job_layout.h"
#include "worker/checkpoint/export_plan.h"
#include "worker/checkpoint/export_proof.h"
#include "worker/checkpoint/hf_export.h"
#include "worker/checkpoint/joint_publication.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/parallel/agree.h"
#include "worker/parallel/gather_master.h"
#include "worker/train/export_comparison.h"
#include "worker/train/train_step.h"

namespace temper {
namespace {

// The same weights through the same code: the reloaded export may differ by nothing but the order of sums.
constexpr double kMaxReloadKl = 1e-8;
// The same sums in another order, x·(W + s·B·A) for x·W + s·B·(A·x).
constexpr double kMaxMergeKl = 1e-7;
// Where the stored dtype loses so much of the training that a user should hear of it.
constexpr double kNotableRoundingKl = 1e-2;
// Of a reward model, in units of its largest score of the sample (but at least 1): as above.
constexpr double kMaxReloadDifference = 1e-5;
constexpr double kMaxMergeDifference = 1e-4;
constexpr double kNotableRoundingDifference = 5e-2;
// Logits of this many positions are compared: two T × V matrices in fp64.
constexpr int64_t kMaxSampleTokens = 256;

// KL(expected ‖ actual) of each position, in fp64.
at::Tensor TokenKl(const at::Tensor& expected_TV, const at::Tensor& actual_TV) {
  const at::Tensor p = expected_TV.to(at::kDouble).log_softmax(-1);
  const at::Tensor q = actual_TV.to(at::kDouble).log_softmax(-1);
  return (p.exp() * (p - q)).sum(-1);
}

at::Tensor SampleLogits(TrainableModel& model, const MicroBatch& sample) {
  return FirstLogits(model, sample, kMaxSampleTokens);
}

// How far what a model says is from what it should say, position by position, and what is said of that.
struct Measure {
  at::Tensor (*of)(const at::Tensor& expected_TV, const at::Tensor& actual_TV);
  const char* name;  // in verification.json, behind "max_" and "mean_"
  const char* text;
  double max_reload, max_merge, notable_rounding;
};

at::Tensor ScoreDifference(const at::Tensor& expected_T1, const at::Tensor& actual_T1) {
  const at::Tensor expected_T = expected_T1.to(at::kDouble).squeeze(1), actual_T = actual_T1.to(at::kDouble).squeeze(1);
  return (actual_T - expected_T).abs() / expected_T.abs().max().clamp_min(1);
}

Measure MeasureOf(const ModelConfig& config) {
  if (config.score_head) {
    return {ScoreDifference,      "score_difference",  "relative difference of a score",
            kMaxReloadDifference, kMaxMergeDifference, kNotableRoundingDifference};
  }
  return {TokenKl, "token_kl", "KL of a token", kMaxReloadKl, kMaxMergeKl, kNotableRoundingKl};
}

// The models below are on the CPU: a GPU is full of what training needs.

// A model in fp32 whose weights are the masters of `model`, rounded to the dtypes that `source` stores them in.
absl::StatusOr<LoadedModel> RoundAsStored(const NativeRepository& source, const TrainableModel& model,
                                          ProcessGroup* ranks) {
  const auto map = TensorMap::Build(*source.family, source.config, model.views());
  if (!map.ok()) return map.status();
  auto made = MakeModel(source, {}, ranks);
  if (!made.ok()) return made.status();
  LoadedModel rounded = *std::move(made);
  for (const TensorBinding& binding : map->bindings()) {
    const std::string stored = StoredDtype(*source.repository, binding);
    if (stored.empty()) continue;  // a tied head that is not stored
    const at::ScalarType dtype = *SafetensorsScalarType(stored);
    for (const size_t part : binding.parts) {
      const at::Tensor master = GatherMaster(model.views()[part], ranks, ProcessGroup::kAll);
      StoreMaster(rounded.model->views()[part], master.to(dtype));
    }
  }
  return rounded;
}

struct Reload {
  double max = 0;            // the reloaded export against the rounded masters
  double mean_rounding = 0;  // the reloaded export against the model as it was trained
};

absl::StatusOr<Reload> ReloadExport(const std::string& uri, const NativeRepository& source, TrainableModel& model,
                                    const MicroBatch& sample, ProcessGroup* ranks) {
  const auto exported = ReopenRepository(source, uri);
  if (const absl::Status opened = Agree(exported.status(), ranks); !opened.ok()) {
    return absl::InternalError(absl::StrCat("the export can't be opened again: ", opened.message()));
  }
  const at::Tensor trained_TV = SampleLogits(model, sample).cpu();
  if (!at::isfinite(trained_TV).all().item<bool>()) {
    return WithCause(absl::AbortedError("the trained model computes values that are not finite: lower "
                                        "training.learning_rate, set training.max_grad_norm, or look for broken "
                                        "samples; its checkpoints may be of use"),
                     FailureCause::kNumerics);
  }
  at::Tensor expected_TV;
  {
    // One more model at a time.
    const auto rounded = RoundAsStored(source, model, ranks);
    if (!rounded.ok()) return rounded.status();
    expected_TV = SampleLogits(*rounded->model, sample);
  }
  const auto reloaded = LoadModel(*exported, {}, ranks);
  if (!reloaded.ok()) return reloaded.status();
  const at::Tensor reloaded_TV = SampleLogits(*reloaded->model, sample);
  const Measure measure = MeasureOf(source.config);
  const Reload result = {measure.of(expected_TV, reloaded_TV).max().item<double>(),
                         measure.of(trained_TV, reloaded_TV).mean().item<double>()};
  // Written so that a NaN fails too.
  if (!(result.max <= measure.max_reload)) {
    return absl::InternalError(absl::StrCat("the reloaded export computes something else: the largest ", measure.text,
                                            " is ", result.max, ", at most ", measure.max_reload, " was expected"));
  }
  return result;
}

absl::Status DescribeDifference(const ExportProof& proof) {
  const ExportProof::Difference& first = proof.differences.front();
  return absl::InternalError(absl::StrFormat(
      "the export differs from the trained model: tensor %s, element %d is %g and should be %g (%d tensors differ)",
      first.tensor, first.first_element, first.stored, first.expected, proof.differences.size()));
}

absl::Status Stopped() { return absl::CancelledError("stopped on request"); }

// Writes and proves, rank by rank the same. What it returns is, on rank 0, verification.json, but for transformers'
// part in it.
class Exporter {
 public:
  Exporter(const TrainJob& job, const Gang& gang, const NativeRepository& source, const MicroBatch& sample,
           Publication& publication, const StopSignal& stop, TrainObserver& observer)
      : job_(job),
        ranks_(gang.group()),
        gang_(gang),
        source_(source),
        measure_(MeasureOf(source.config)),
        sample_(sample),
        publication_(publication),
        stop_(stop),
        observer_(observer) {}

  absl::StatusOr<nlohmann::json> WriteModel(TrainableModel& model) {
    const absl::Status exported =
        ExportModel(*source_.repository, *source_.family, source_.config, model.views(),
                    {.max_shard_size = job_.output.max_shard_size, .ranks = ranks_}, publication_);
    if (!exported.ok()) return exported;
    FaultPoint("rank.export.model_written");
    if (stop_asked()) return Stopped();
    observer_.OnPhase(TrainPhase::kVerifying, 0);
    const auto proof = ProveExport(publication_.store(), publication_.directory(), *source_.repository, *source_.family,
                                   source_.config, model.views(), ranks_);
    if (!proof.ok()) return proof.status();
    const absl::Status same = proof->passed() ? absl::OkStatus() : DescribeDifference(*proof);
    if (const absl::Status on_all = Agree(same, ranks_); !on_all.ok()) return on_all;
    if (stop_asked()) return Stopped();
    const auto reload = ReloadExport(publication_.uri(), source_, model, sample_, ranks_);
    if (!reload.ok()) return reload.status();
    if (reload->mean_rounding > measure_.notable_rounding) {
      observer_.OnLog(
          LogSeverity::kWarning,
          absl::StrFormat("the export keeps the source's dtypes, and that rounding takes away a part of what was "
                          "learned (mean %s %.2g): train longer or with a higher learning rate, or from an fp32 "
                          "checkpoint",
                          measure_.text, reload->mean_rounding));
    }
    return nlohmann::json{{"tensors", proof->ToJson()},
                          {"native_reload", {{"passed", true}, {Max(), reload->max}}},
                          {"rounding", {{absl::StrCat("mean_", measure_.name), reload->mean_rounding}}}};
  }

  absl::StatusOr<nlohmann::json> WriteAdapted(const AdapterPlan& plan, const TrainableModel& model) {
    if (job_.output.adapters == AdapterExport::kAdapter) return WriteAdapter(plan, model, "");
    auto proof = WriteMerged(plan, model);
    if (!proof.ok() || job_.output.adapters == AdapterExport::kMerged) return proof;
    const auto adapter = WriteAdapter(plan, model, "adapter");
    if (!adapter.ok()) return adapter.status();
    (*proof)["adapter"] = *adapter;
    return proof;
  }

 private:
  std::string Max() const { return absl::StrCat("max_", measure_.name); }
  bool stop_asked() const { return gang_.Any(stop_.requested()); }

  // In a folder of the publication ("": all of it).
  absl::StatusOr<nlohmann::json> WriteAdapter(const AdapterPlan& plan, const TrainableModel& model,
                                              const std::string& folder) {
    const AdapterFormat format = job_.output.adapter_format;
    const auto tensors = TensorsOfPlan(plan, source_, model, format);
    if (!tensors.ok()) return tensors.status();
    const absl::Status exported =
        ExportPeftAdapter(plan.ConfigIn(format), *tensors, PublishedFolder(publication_, folder), ranks_);
    if (!exported.ok()) return exported;
    observer_.OnPhase(TrainPhase::kVerifying, 0);
    const std::string below = folder.empty() ? "" : "/" + folder;
    const absl::Status proved =
        ProvePeftAdapter(publication_.store(), publication_.directory() + below, *tensors, ranks_);
    if (!proved.ok()) return proved;
    return nlohmann::json{{"tensors", {{"passed", true}, {"tensors", tensors->size()}}}};
  }

  // The model with its adapters in its weights: in fp32, from the source's own weights, whatever training computed in.
  absl::StatusOr<nlohmann::json> WriteMerged(const AdapterPlan& plan, const TrainableModel& model) {
    const auto loaded = LoadModel(source_, plan.ModelOptions(at::kFloat, job_.training.seed), ranks_);
    if (!loaded.ok()) return loaded.status();
    TrainableModel& merged = *loaded->model;
    const auto from = TensorsOfPlan(plan, source_, model, AdapterFormat::kPeft),
               to = TensorsOfPlan(plan, source_, merged, AdapterFormat::kPeft);
    if (!from.ok() || !to.ok()) return from.ok() ? to.status() : from.status();
    for (size_t i = 0; i < to->size(); ++i) {
      for (size_t part = 0; part < (*to)[i].parts.size(); ++part) {
        StoreMaster((*to)[i].parts[part], GatherMaster((*from)[i].parts[part], ranks_, ProcessGroup::kAll));
      }
    }
    const at::Tensor adapted_TV = SampleLogits(merged, sample_);
    merged.MergeLora();
    const double largest = measure_.of(adapted_TV, SampleLogits(merged, sample_)).max().item<double>();
    if (at::isfinite(adapted_TV).all().item<bool>() && !(largest <= measure_.max_merge)) {
      return absl::InternalError(
          absl::StrCat("the merged model computes something else than model and adapters: the largest ", measure_.text,
                       " is ", largest, ", at most ", measure_.max_merge, " was expected"));
    }
    auto written = WriteModel(merged);
    if (written.ok()) (*written)["merge"] = {{"passed", true}, {Max(), largest}};
    return written;
  }

  const TrainJob& job_;
  ProcessGroup* const ranks_;
  const Gang& gang_;
  const NativeRepository& source_;
  const Measure measure_;
  const MicroBatch& sample_;
  Publication& publication_;
  const StopSignal& stop_;
  TrainObserver& observer_;
};

}  // namespace

absl::Status CheckOutput(ObjectStore& store, const TrainJob& job) {
  // The first gang of a job finds nothing; later ones find what the job itself wrote.
  const auto present = store.ListDirectories(job.job_id);
  if (!present.ok()) return present.status();
  if (job.epoch <= 1 && !present->empty()) {
    return WithCause(absl::AlreadyExistsError(absl::StrCat(
                         store.UriOf(job.job_id), " holds the files of another job (", absl::StrJoin(*present, ", "),
                         "): choose another output.uri or another job id, or move them away")),
                     FailureCause::kUserInput);
  }
  const std::string probe = WriteProbe(job.job_id, job.epoch);
  if (const absl::Status written = store.Write(probe, "temper"); !written.ok()) return written;
  if (const absl::Status deleted = store.Delete(probe); !deleted.ok()) return deleted;
  // A job that is only looked at leaves nothing.
  const auto files = store.List(job.job_id);
  if (!files.ok()) return files.status();
  return present->empty() && files->empty() ? store.DeleteDirectory(job.job_id) : absl::OkStatus();
}

absl::StatusOr<ExportSummary> ExportAndProve(ObjectStore& store, const TrainJob& job, const Gang& gang,
                                             const NativeRepository& source, const AdapterPlan* plan,
                                             TrainableModel& model, const MicroBatch& sample, const StopSignal& stop,
                                             TrainObserver& observer, const ExportVerifier& verifier) {
  if (gang.Any(stop.requested())) return Stopped();
  const auto publication =
      BeginTogether(store, ExportDirectory(job.job_id, job.epoch), job.job_id, job.epoch, gang.group());
  if (!publication.ok()) return publication.status();
  Exporter exporter(job, gang, source, sample, **publication, stop, observer);
  auto verification = plan != nullptr ? exporter.WriteAdapted(*plan, model) : exporter.WriteModel(model);
  if (!verification.ok()) return verification.status();
  if (gang.Any(stop.requested())) return Stopped();
  CollectFiles(**publication, gang.group());
  ExportSummary summary = {.uri = (*publication)->uri()};
  if (gang.rank() > 0) return summary;

  if (source.config.score_head) {
    const std::string why = "temper compares language models only";
    observer.OnLog(LogSeverity::kInfo, absl::StrCat("the export was not compared with transformers' model: ", why));
    (*verification)["transformers"] = {{"skipped", why}};
  } else if (verifier && source.native()) {
    const absl::Status compared =
        AddComparisons(job, gang, source, plan, model, **publication, stop, observer, verifier, *verification);
    if (!compared.ok()) return compared;
  }
  if (const absl::Status written = (*publication)->Write("verification.json", verification->dump(2) + "\n");
      !written.ok()) {
    return written;
  }
  FaultPoint("rank.export.before_commit");
  if (const absl::Status committed = (*publication)->Commit(); !committed.ok()) return committed;
  FaultPoint("rank.export.committed");
  const Manifest& manifest = (*publication)->manifest();
  summary.bytes = manifest.total_size();
  summary.files = static_cast<int32_t>(manifest.files.size());
  summary.proof = verification->dump();
  return summary;
}

}  // namespace temper

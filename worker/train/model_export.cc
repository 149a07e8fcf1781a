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
#include "common/storage/publication.h"
#include "worker/checkpoint/export_plan.h"
#include "worker/checkpoint/export_proof.h"
#include "worker/checkpoint/hf_export.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/model/mechanisms.h"
#include "worker/train/memory_estimate.h"
#include "worker/train/train_step.h"

namespace temper {
namespace {

// The same weights through the same code: the reloaded export may differ by nothing but the order of sums.
constexpr double kMaxReloadKl = 1e-8;
// The same sums in another order, x·(W + s·B·A) for x·W + s·B·(A·x).
constexpr double kMaxMergeKl = 1e-7;
// Where the stored dtype loses so much of the training that a user should hear of it.
constexpr double kNotableRoundingKl = 1e-2;
// Logits of this many positions are compared: two T × V matrices in fp64.
constexpr int64_t kMaxSampleTokens = 256;
// What the interpreter and its libraries take.
constexpr int64_t kPythonBytes = int64_t{1} << 30;

// KL(expected ‖ actual) of each position, in fp64.
at::Tensor TokenKl(const at::Tensor& expected_TV, const at::Tensor& actual_TV) {
  const at::Tensor p = expected_TV.to(at::kDouble).log_softmax(-1);
  const at::Tensor q = actual_TV.to(at::kDouble).log_softmax(-1);
  return (p.exp() * (p - q)).sum(-1);
}

at::Tensor SampleLogits(Transformer& model, const MicroBatch& sample) {
  const at::Tensor hidden_TD = ForwardHidden(model, sample);
  return model.head().Logits(hidden_TD.narrow(0, 0, std::min(kMaxSampleTokens, hidden_TD.size(0))));
}

// A model in fp32 whose weights are the masters of `model`, rounded to the dtypes that `source` stores them in.
absl::StatusOr<std::unique_ptr<Transformer>> RoundAsStored(const NativeRepository& source, const Transformer& model) {
  const auto map = TensorMap::Build(*source.family, source.config, model.views());
  if (!map.ok()) return map.status();
  auto rounded = std::make_unique<Transformer>(source.config, TransformerOptions{});
  for (const TensorBinding& binding : map->bindings()) {
    const std::string stored = StoredDtype(*source.repository, binding);
    if (stored.empty()) continue;  // a tied head that is not stored
    const at::ScalarType dtype = *SafetensorsScalarType(stored);
    for (const size_t part : binding.parts) {
      StoreMaster(rounded->views()[part], LoadMaster(model.views()[part]).to(dtype));
    }
  }
  return rounded;
}

struct Reload {
  double max_token_kl = 0;            // the reloaded export against the rounded masters
  double mean_rounding_token_kl = 0;  // the reloaded export against the model as it was trained
};

absl::StatusOr<Reload> ReloadExport(const std::string& uri, const NativeRepository& source, Transformer& model,
                                    const MicroBatch& sample) {
  const auto exported = OpenNativeRepository(uri);
  if (!exported.ok()) {
    return absl::InternalError(absl::StrCat("the export can't be opened again: ", exported.status().message()));
  }
  if (exported->config != source.config) {
    return absl::InternalError("the exported config.json describes another model than the one that was trained");
  }
  const at::Tensor trained_TV = SampleLogits(model, sample);
  if (!at::isfinite(trained_TV).all().item<bool>()) {
    return WithCause(absl::AbortedError("the trained model computes values that are not finite: lower "
                                        "training.learning_rate, set training.max_grad_norm, or look for broken "
                                        "samples; its checkpoints may be of use"),
                     FailureCause::kNumerics);
  }
  at::Tensor expected_TV;
  {
    // One more model at a time.
    const auto rounded = RoundAsStored(source, model);
    if (!rounded.ok()) return rounded.status();
    expected_TV = SampleLogits(**rounded, sample);
  }
  const auto reloaded = LoadTransformer(*exported, {});
  if (!reloaded.ok()) return reloaded.status();
  const at::Tensor reloaded_TV = SampleLogits(**reloaded, sample);
  const Reload result = {TokenKl(expected_TV, reloaded_TV).max().item<double>(),
                         TokenKl(trained_TV, reloaded_TV).mean().item<double>()};
  // Written so that a NaN fails too.
  if (!(result.max_token_kl <= kMaxReloadKl)) {
    return absl::InternalError(
        absl::StrCat("the reloaded export computes something else: the largest KL of a token is ", result.max_token_kl,
                     ", at most ", kMaxReloadKl, " was expected"));
  }
  return result;
}

// Bytes that our model and transformers' own take side by side, in fp32: of so many layers of `model`.
int64_t ComparisonBytes(const Transformer& model, int64_t layers) {
  const auto count = [](const std::vector<Parameter*>& parameters) {
    int64_t elements = 0;
    for (const Parameter* parameter : parameters) elements += parameter->weight.numel();
    return elements;
  };
  int64_t all = count(model.parameters()), in_layers = 0, widest = 0;
  for (int unit = 0; unit < model.num_units(); ++unit) {
    const int64_t elements = count(model.unit_parameters(unit));
    in_layers += elements;
    widest = std::max(widest, elements);
  }
  return kPythonBytes + 2 * 4 * std::min(all, all - in_layers + layers * widest);
}

// Lets transformers read the export (`adapter`: "" or what PEFT shall put on top of it): the whole where memory
// suffices, else as few layers at a time as show all that the model does.
nlohmann::json CompareWithTransformers(const std::string& uri, const std::string& adapter, const ModelConfig& config,
                                       const Transformer& model, const ExportVerifier& verifier,
                                       TrainObserver& observer) {
  const auto skipped = [&](const std::string& why) {
    observer.OnLog(LogSeverity::kWarning, absl::StrCat("the export was not compared with transformers' model: ", why));
    return nlohmann::json{{"skipped", why}};
  };
  const int64_t available = AvailableBytes();
  const std::optional<int64_t> layers_at_a_time = LayersToCompare(model, config, available);
  if (!layers_at_a_time) {
    return skipped(absl::StrFormat("it takes about %.1f GB of memory, %.1f GB are there",
                                   1e-9 * ComparisonBytes(model, LeastDepth(config)), 1e-9 * available));
  }
  if (*layers_at_a_time > 0 && !adapter.empty()) return skipped("there is no memory for the whole model, twice");
  absl::StatusOr<nlohmann::json> verdict = verifier({uri, adapter, *layers_at_a_time});
  if (!verdict.ok()) return skipped(std::string(verdict.status().message()));
  if (!verdict->value("passed", false)) {
    const auto reasons = verdict->value("reasons", std::vector<std::string>());
    observer.OnLog(LogSeverity::kWarning, absl::StrCat("transformers' model computes something else from the export: ",
                                                       absl::StrJoin(reasons, "; ")));
  }
  return *std::move(verdict);
}

absl::Status DescribeDifference(const ExportProof& proof) {
  const ExportProof::Difference& first = proof.differences.front();
  return absl::InternalError(absl::StrFormat(
      "the export differs from the trained model: tensor %s, element %d is %g and should be %g (%d tensors differ)",
      first.tensor, first.first_element, first.stored, first.expected, proof.differences.size()));
}

// Writes and proves; what it returns is verification.json.
absl::StatusOr<nlohmann::json> WriteModel(const TrainJob& job, const NativeRepository& source, Transformer& model,
                                          const MicroBatch& sample, Publication& publication, const StopSignal& stop,
                                          TrainObserver& observer, const ExportVerifier& verifier) {
  const absl::Status exported = ExportModel(*source.repository, *source.family, source.config, model.views(),
                                            {.max_shard_size = job.output.max_shard_size}, publication);
  if (!exported.ok()) return exported;
  if (stop.requested()) return absl::CancelledError("stopped on request");
  observer.OnPhase(TrainPhase::kVerifying, 0);
  const auto proof = ProveExport(publication.store(), publication.directory(), *source.repository, *source.family,
                                 source.config, model.views());
  if (!proof.ok()) return proof.status();
  if (!proof->passed()) return DescribeDifference(*proof);
  if (stop.requested()) return absl::CancelledError("stopped on request");
  const auto reload = ReloadExport(publication.uri(), source, model, sample);
  if (!reload.ok()) return reload.status();
  if (reload->mean_rounding_token_kl > kNotableRoundingKl) {
    observer.OnLog(
        LogSeverity::kWarning,
        absl::StrFormat("the export keeps the source's dtypes, and that rounding takes away a part of what was "
                        "learned (mean KL per token %.2g): train longer or with a higher learning rate, or "
                        "from an fp32 checkpoint",
                        reload->mean_rounding_token_kl));
  }
  nlohmann::json verification = {{"tensors", proof->ToJson()},
                                 {"native_reload", {{"passed", true}, {"max_token_kl", reload->max_token_kl}}},
                                 {"rounding", {{"mean_token_kl", reload->mean_rounding_token_kl}}}};
  if (stop.requested()) return absl::CancelledError("stopped on request");
  if (verifier) {
    verification["transformers"] =
        CompareWithTransformers(publication.uri(), "", source.config, model, verifier, observer);
  }
  return verification;
}

// The same for adapters, in a folder of the publication ("": all of it).
absl::StatusOr<nlohmann::json> WriteAdapter(const TrainJob& job, const NativeRepository& source,
                                            const AdapterPlan& plan, const Transformer& model,
                                            const std::string& folder, Publication& publication, const StopSignal& stop,
                                            TrainObserver& observer, const ExportVerifier& verifier) {
  const AdapterFormat format = job.output.adapter_format;
  const auto tensors = TensorsOfPlan(plan, source, model, format);
  if (!tensors.ok()) return tensors.status();
  const absl::Status exported =
      ExportPeftAdapter(plan.ConfigIn(format), *tensors, PublishedFolder(publication, folder));
  if (!exported.ok()) return exported;
  observer.OnPhase(TrainPhase::kVerifying, 0);
  const std::string below = folder.empty() ? "" : "/" + folder;
  const absl::Status proved = ProvePeftAdapter(publication.store(), publication.directory() + below, *tensors);
  if (!proved.ok()) return proved;
  nlohmann::json verification = {{"tensors", {{"passed", true}, {"tensors", tensors->size()}}}};
  if (stop.requested()) return absl::CancelledError("stopped on request");
  if (verifier) {
    verification["transformers"] = CompareWithTransformers(source.repository->directory(), publication.uri() + below,
                                                           source.config, model, verifier, observer);
  }
  return verification;
}

// The model with its adapters in its weights: in fp32, from the source's own weights, whatever training computed in.
absl::StatusOr<nlohmann::json> WriteMerged(const TrainJob& job, const NativeRepository& source, const AdapterPlan& plan,
                                           const Transformer& model, const MicroBatch& sample, Publication& publication,
                                           const StopSignal& stop, TrainObserver& observer,
                                           const ExportVerifier& verifier) {
  const auto merged = LoadTransformer(source, plan.ModelOptions(at::kFloat, job.training.seed));
  if (!merged.ok()) return merged.status();
  const auto from = TensorsOfPlan(plan, source, model, AdapterFormat::kPeft),
             to = TensorsOfPlan(plan, source, **merged, AdapterFormat::kPeft);
  if (!from.ok() || !to.ok()) return from.ok() ? to.status() : from.status();
  for (size_t i = 0; i < to->size(); ++i) {
    for (size_t part = 0; part < (*to)[i].parts.size(); ++part) {
      StoreMaster((*to)[i].parts[part], LoadMaster((*from)[i].parts[part]));
    }
  }
  const at::Tensor adapted_TV = SampleLogits(**merged, sample);
  (*merged)->MergeLora();
  const double kl = TokenKl(adapted_TV, SampleLogits(**merged, sample)).max().item<double>();
  if (at::isfinite(adapted_TV).all().item<bool>() && !(kl <= kMaxMergeKl)) {
    return absl::InternalError(
        absl::StrCat("the merged model computes something else than model and adapters: the "
                     "largest KL of a token is ",
                     kl, ", at most ", kMaxMergeKl, " was expected"));
  }
  auto written = WriteModel(job, source, **merged, sample, publication, stop, observer, verifier);
  if (written.ok()) (*written)["merge"] = {{"passed", true}, {"max_token_kl", kl}};
  return written;
}

absl::StatusOr<nlohmann::json> WriteAdapted(const TrainJob& job, const NativeRepository& source,
                                            const AdapterPlan& plan, const Transformer& model, const MicroBatch& sample,
                                            Publication& publication, const StopSignal& stop, TrainObserver& observer,
                                            const ExportVerifier& verifier) {
  if (job.output.adapters == AdapterExport::kAdapter) {
    return WriteAdapter(job, source, plan, model, "", publication, stop, observer, verifier);
  }
  auto proof = WriteMerged(job, source, plan, model, sample, publication, stop, observer, verifier);
  if (!proof.ok() || job.output.adapters == AdapterExport::kMerged) return proof;
  const auto adapter = WriteAdapter(job, source, plan, model, "adapter", publication, stop, observer, verifier);
  if (!adapter.ok()) return adapter.status();
  (*proof)["adapter"] = *adapter;
  return proof;
}

}  // namespace

std::optional<int64_t> LayersToCompare(const Transformer& model, const ModelConfig& config, int64_t available) {
  if (ComparisonBytes(model, config.num_layers) <= available) return 0;
  const int64_t least = LeastDepth(config);
  return ComparisonBytes(model, least) <= available ? std::optional(least) : std::nullopt;
}

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

absl::StatusOr<ExportSummary> ExportAndProve(ObjectStore& store, const TrainJob& job, const NativeRepository& source,
                                             const AdapterPlan* plan, Transformer& model, const MicroBatch& sample,
                                             const StopSignal& stop, TrainObserver& observer,
                                             const ExportVerifier& verifier) {
  if (stop.requested()) return absl::CancelledError("stopped on request");
  auto publication = Publication::Begin(store, ExportDirectory(job.job_id, job.epoch), job.job_id, job.epoch);
  if (!publication.ok()) return publication.status();
  const auto verification =
      plan != nullptr ? WriteAdapted(job, source, *plan, model, sample, **publication, stop, observer, verifier)
                      : WriteModel(job, source, model, sample, **publication, stop, observer, verifier);
  if (!verification.ok()) return verification.status();
  if (const absl::Status written = (*publication)->Write("verification.json", verification->dump(2) + "\n");
      !written.ok()) {
    return written;
  }
  FaultPoint("rank.export.before_commit");
  if (const absl::Status committed = (*publication)->Commit(); !committed.ok()) return committed;
  FaultPoint("rank.export.committed");
  const Manifest& manifest = (*publication)->manifest();
  return ExportSummary{(*publication)->uri(), manifest.total_size(), static_cast<int32_t>(manifest.files.size()),
                       verification->dump()};
}

}  // namespace temper

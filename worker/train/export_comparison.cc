// SPDX-License-Identifier: Apache-2.0
#include "worker/train/export_comparison.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/storage/storage_uri.h"
#include "worker/model/mechanisms.h"
#include "worker/train/memory_estimate.h"

namespace temper {
namespace {

// What the interpreter and its libraries take.
constexpr int64_t kPythonBytes = int64_t{1} << 30;

// Bytes that our model and transformers' own take side by side, in fp32: of so many layers of `model`.
int64_t ComparisonBytes(const TrainableModel& model, int64_t layers) {
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
                                       const TrainableModel& model, const ExportVerifier& verifier,
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

}  // namespace

std::optional<int64_t> LayersToCompare(const TrainableModel& model, const ModelConfig& config, int64_t available) {
  if (ComparisonBytes(model, config.num_layers) <= available) return 0;
  const int64_t least = LeastDepth(config);
  return ComparisonBytes(model, least) <= available ? std::optional(least) : std::nullopt;
}

absl::Status AddComparisons(const TrainJob& job, const Gang& gang, const NativeRepository& source,
                            const AdapterPlan* plan, const TrainableModel& model, const Publication& publication,
                            const StopSignal& stop, TrainObserver& observer, const ExportVerifier& verifier,
                            nlohmann::json& verification) {
  const auto compare = [&](const std::string& uri, const std::string& adapter, nlohmann::json& place) {
    if (gang.alone() && stop.requested()) return absl::CancelledError("stopped on request");
    place["transformers"] = CompareWithTransformers(uri, adapter, source.config, model, verifier, observer);
    return absl::OkStatus();
  };
  const std::string& base = source.repository->directory();
  if (plan != nullptr && job.output.adapters == AdapterExport::kAdapter) {
    return compare(base, publication.uri(), verification);
  }
  if (absl::Status status = compare(publication.uri(), "", verification); !status.ok()) return status;
  if (plan == nullptr || job.output.adapters == AdapterExport::kMerged) return absl::OkStatus();
  return compare(base, UriBelow(publication.uri(), "adapter"), verification["adapter"]);
}

}  // namespace temper

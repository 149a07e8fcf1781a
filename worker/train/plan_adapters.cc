// SPDX-License-Identifier: Apache-2.0
#include "worker/train/plan_adapters.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace temper {
namespace {

constexpr char kScoreModule[] = "score";

bool TrainsScore(const AdapterPlan& plan) {
  const std::vector<std::string>& modules = plan.peft.modules_to_save;
  return std::find(modules.begin(), modules.end(), kScoreModule) != modules.end();
}

absl::StatusOr<std::unique_ptr<AdapterPlan>> PlanByOptions(const LoraOptions& lora, const NativeRepository& model) {
  if (!lora.adapter.empty()) return PlanFromAdapter(lora.adapter, lora.dropout, model);
  std::vector<std::string> modules = lora.modules_to_save;
  if (model.config.score_head) modules.push_back(kScoreModule);
  return PlanNewAdapters({.rank = lora.rank,
                          .alpha = lora.alpha,
                          .rslora = lora.rslora,
                          .dora = lora.dora,
                          .dropout = lora.dropout,
                          .target_modules = lora.targets,
                          .modules_to_save = std::move(modules)},
                         model);
}

absl::Status CheckExport(const OutputOptions& output, const AdapterPlan& plan, const NativeRepository& model) {
  if (output.adapters != AdapterExport::kAdapter && plan.changes_tied_apart(model.config)) {
    return absl::InvalidArgumentError(
        "output.adapters: the embedding and the head of this model are one matrix, but lora.adapter was made without "
        "ensure_weight_tying and changes them apart: there is no merged model of this config.json. Export the adapter");
  }
  if (output.adapter_format == AdapterFormat::kVllm && (plan.peft.dora || !plan.peft.modules_to_save.empty())) {
    return absl::InvalidArgumentError(
        "output.adapter_format: vLLM reads no adapter with lora.dora or lora.modules_to_save: leave them out, or "
        "export the merged model (output.adapters: merged)");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdapterPlan>> PlanAdapters(const TrainJob& job, const NativeRepository& model) {
  if (!job.lora) return std::unique_ptr<AdapterPlan>();
  auto plan = PlanByOptions(*job.lora, model);
  if (!plan.ok()) return plan.status();
  (*plan)->peft.base_model = job.model_uri;
  if (model.config.score_head) {
    (*plan)->peft.task_type = "SEQ_CLS";
    if (!TrainsScore(**plan)) {
      return absl::InvalidArgumentError(
          "lora.adapter: it has no score, so it is a language model's: train the merged model "
          "(output.adapters: merged), or leave it out");
    }
  }
  if (absl::Status exportable = CheckExport(job.output, **plan, model); !exportable.ok()) return exportable;
  return plan;
}

TransformerOptions ModelOptions(const TrainJob& job, const AdapterPlan* plan, at::ScalarType dtype) {
  if (plan != nullptr) return plan->ModelOptions(dtype, job.training.seed);
  return {.dtype = dtype, .freeze = job.training.freeze};
}

}  // namespace temper

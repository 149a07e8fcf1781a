// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/hf_export.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "worker/checkpoint/export_plan.h"
#include "worker/checkpoint/hf_config.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/checkpoint/weight_files.h"
#include "worker/parallel/agree.h"

namespace temper {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kGenerationConfig[] = "generation_config.json";
constexpr int64_t kCopyBytes = 4 << 20;

std::vector<WeightFile> FilesOfSource(const HfRepository& source, const ExportPlan& plan) {
  std::vector<WeightFile> files(source.weight_files().size());
  for (size_t i = 0; i < files.size(); ++i) {
    files[i].name = source.weight_files()[i];
    files[i].metadata = source.File(i).header().metadata;
  }
  for (const ExportedTensor& tensor : plan.tensors) files[tensor.file].Add(tensor);
  std::erase_if(files, [](const WeightFile& file) { return file.tensors.empty(); });
  return files;
}

// The source's files, or the same tensors in the same order in files of at most `max_size`.
std::vector<WeightFile> PlanFiles(const HfRepository& source, const ExportPlan& plan, int64_t max_size) {
  std::vector<WeightFile> files = FilesOfSource(source, plan);
  // A file of one tensor can't be cut.
  if (std::all_of(files.begin(), files.end(),
                  [&](const WeightFile& file) { return file.size <= max_size || file.tensors.size() == 1; })) {
    return files;
  }
  files.clear();
  for (const ExportedTensor& tensor : plan.tensors) {
    if (files.empty() || files.back().size + tensor.entry.size() > max_size) files.emplace_back();
    files.back().Add(tensor);
  }
  for (size_t i = 0; i < files.size(); ++i) {
    files[i].name = absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, files.size());
  }
  return files;
}

absl::Status WriteIndex(const HfRepository& source, const std::vector<WeightFile>& files, PublishedFolder folder) {
  if (files.size() == 1 && files[0].name == kSingleFile) return absl::OkStatus();
  nlohmann::ordered_json index;
  index["metadata"] = source.index_metadata();
  int64_t total_size = 0;
  std::map<std::string, std::string> weight_map;
  for (const WeightFile& file : files) {
    total_size += file.size;
    for (const ExportedTensor* tensor : file.tensors) weight_map.emplace(tensor->entry.name, file.name);
  }
  index["metadata"]["total_size"] = total_size;
  index["metadata"].erase("total_parameters");  // the source's, which a reward model does not have
  index["weight_map"] = weight_map;
  return folder.Write(kIndex, index.dump(2) + "\n");
}

// What config.json calls the dtype that most of the weights have.
std::string CommonDtype(const ExportPlan& plan) {
  std::map<std::string, int64_t> bytes;
  for (const ExportedTensor& tensor : plan.tensors) bytes[tensor.entry.dtype] += tensor.entry.size();
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most == bytes.end() || most->first == "F32") return "float32";
  return most->first == "F16" ? "float16" : "bfloat16";
}

absl::Status CarryOver(const HfRepository& source, const std::string& path, PublishedFolder folder) {
  absl::StatusOr<std::unique_ptr<ObjectReader>> input = source.store().OpenForRead(path);
  if (!input.ok()) return input.status();
  absl::StatusOr<std::unique_ptr<PublishedFile>> file = folder.Create(path);
  if (!file.ok()) return file.status();
  for (int64_t offset = 0; offset < (*input)->size(); offset += kCopyBytes) {
    const auto bytes = (*input)->ReadAt(offset, std::min(kCopyBytes, (*input)->size() - offset));
    if (!bytes.ok()) return bytes.status();
    if (absl::Status status = (*file)->Write(*bytes); !status.ok()) return status;
  }
  return (*file)->Close();
}

// All but the weights. What says scores generates nothing.
absl::Status WriteOtherFiles(const HfRepository& source, const ExportPlan& plan, const std::vector<WeightFile>& files,
                             bool generates, PublishedFolder folder) {
  if (absl::Status status = WriteIndex(source, files, folder); !status.ok()) return status;
  const nlohmann::ordered_json config_json = ExportConfig(source.config(), CommonDtype(plan), plan.quantized);
  if (absl::Status status = folder.Write("config.json", config_json.dump(2) + "\n"); !status.ok()) return status;
  if (generates && !source.HasFile(kGenerationConfig)) {
    const std::string generation = DeriveGenerationConfig(source.config()).dump(2) + "\n";
    if (absl::Status status = folder.Write(kGenerationConfig, generation); !status.ok()) return status;
  }
  for (const std::string& path : source.carried_files()) {
    if (!generates && path == kGenerationConfig) continue;
    if (absl::Status status = CarryOver(source, path, folder); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ExportModel(const HfRepository& source, const FamilySpec& family, const ModelConfig& config,
                         std::span<const WeightView> weights, const HfExportOptions& options, PublishedFolder folder) {
  absl::StatusOr<TensorMap> map = TensorMap::Build(family, config, weights);
  if (!map.ok()) return map.status();
  const absl::StatusOr<ExportPlan> plan = PlanExport(source, *map, weights);
  if (!plan.ok()) return plan.status();
  std::vector<WeightFile> files = PlanFiles(source, *plan, options.max_shard_size);
  if (absl::Status status = WriteWeightFiles(source, files, *map, options.ranks, folder); !status.ok()) return status;
  const bool first = options.ranks == nullptr || options.ranks->rank() == 0;
  return Agree(first ? WriteOtherFiles(source, *plan, files, !config.score_head, folder) : absl::OkStatus(),
               options.ranks);
}

}  // namespace temper

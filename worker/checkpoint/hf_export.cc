// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/hf_export.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/failure.h"
#include "worker/checkpoint/export_plan.h"
#include "worker/checkpoint/hf_config.h"
#include "worker/checkpoint/tensor_map.h"

namespace temper {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr size_t kCopyBytes = 4 << 20;

// A weight file of the export.
struct Shard {
  std::string name;
  std::map<std::string, std::string> metadata;
  std::vector<const ExportedTensor*> tensors;
  int64_t size = 0;  // bytes of tensors

  void Add(const ExportedTensor& tensor) {
    tensors.push_back(&tensor);
    size += tensor.entry.size();
  }
};

std::vector<Shard> ShardsOfSource(const HfRepository& source, const ExportPlan& plan) {
  std::vector<Shard> shards(source.weight_files().size());
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].name = source.weight_files()[i];
    shards[i].metadata = source.File(i).header().metadata;
  }
  for (const ExportedTensor& tensor : plan.tensors) shards[tensor.file].Add(tensor);
  std::erase_if(shards, [](const Shard& shard) { return shard.tensors.empty(); });
  return shards;
}

// The source's files, or the same tensors in the same order in files of at most `max_size`.
std::vector<Shard> PlanShards(const HfRepository& source, const ExportPlan& plan, int64_t max_size) {
  std::vector<Shard> shards = ShardsOfSource(source, plan);
  // A file of one tensor can't be cut.
  if (std::all_of(shards.begin(), shards.end(),
                  [&](const Shard& shard) { return shard.size <= max_size || shard.tensors.size() == 1; })) {
    return shards;
  }
  shards.clear();
  for (const ExportedTensor& tensor : plan.tensors) {
    if (shards.empty() || shards.back().size + tensor.entry.size() > max_size) shards.emplace_back();
    shards.back().Add(tensor);
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].name = absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size());
  }
  return shards;
}

std::string_view BytesOf(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

absl::Status WriteTensor(const HfRepository& source, const ExportedTensor& tensor, const TensorMap& map,
                         PublishedFile& file) {
  if (tensor.verbatim != nullptr) {
    const absl::Status status = file.Write(source.Bytes(*tensor.verbatim));
    source.Release(*tensor.verbatim);
    return status;
  }
  const at::ScalarType dtype = *SafetensorsScalarType(tensor.entry.dtype);
  return map.ForEachPiece(*tensor.binding, [&](const TensorPiece& piece) {
    const at::Tensor master = piece.Load();
    const at::Tensor stored = master.to(dtype).contiguous();
    if (dtype != at::kFloat && (at::isinf(stored) & ~at::isinf(master)).any().item<bool>()) {
      return WithCause(
          absl::InvalidArgumentError(absl::StrCat(
              "tensor ", tensor.entry.name, " holds values that ", tensor.entry.dtype,
              ", the dtype that the source has it in, can't represent: train from a BF16 or F32 checkpoint")),
          FailureCause::kNumerics);
    }
    return file.Write(BytesOf(stored));
  });
}

absl::Status WriteShard(const HfRepository& source, Shard& shard, const TensorMap& map, PublishedFolder folder) {
  absl::StatusOr<std::unique_ptr<PublishedFile>> file = folder.Create(shard.name);
  if (!file.ok()) return file.status();
  std::vector<SafetensorsEntry> entries;
  for (const ExportedTensor* tensor : shard.tensors) entries.push_back(tensor->entry);
  shard.metadata["format"] = "pt";  // transformers insists on it
  absl::Status status = (*file)->Write(BuildSafetensorsHeader(entries, shard.metadata));
  for (size_t i = 0; status.ok() && i < shard.tensors.size(); ++i) {
    status = WriteTensor(source, *shard.tensors[i], map, **file);
  }
  return status.ok() ? (*file)->Close() : status;
}

absl::Status WriteIndex(const HfRepository& source, const std::vector<Shard>& shards, PublishedFolder folder) {
  if (shards.size() == 1 && shards[0].name == kSingleFile) return absl::OkStatus();
  nlohmann::ordered_json index;
  index["metadata"] = source.index_metadata();
  int64_t total_size = 0;
  std::map<std::string, std::string> weight_map;
  for (const Shard& shard : shards) {
    total_size += shard.size;
    for (const ExportedTensor* tensor : shard.tensors) weight_map.emplace(tensor->entry.name, shard.name);
  }
  index["metadata"]["total_size"] = total_size;
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
  const std::string from = absl::StrCat(source.directory(), "/", path);
  std::ifstream input(from, std::ios::binary);
  if (!input) return absl::UnavailableError(absl::StrCat("cannot read ", from, ": ", std::strerror(errno)));
  absl::StatusOr<std::unique_ptr<PublishedFile>> file = folder.Create(path);
  if (!file.ok()) return file.status();
  std::string buffer(kCopyBytes, '\0');
  while (input) {
    input.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    if (input.bad()) return absl::UnavailableError(absl::StrCat("cannot read ", from));
    const absl::Status status = (*file)->Write(std::string_view(buffer).substr(0, static_cast<size_t>(input.gcount())));
    if (!status.ok()) return status;
  }
  return (*file)->Close();
}

}  // namespace

absl::Status ExportModel(const HfRepository& source, const FamilySpec& family, const ModelConfig& config,
                         std::span<const WeightView> weights, const HfExportOptions& options, PublishedFolder folder) {
  absl::StatusOr<TensorMap> map = TensorMap::Build(family, config, weights);
  if (!map.ok()) return map.status();
  const absl::StatusOr<ExportPlan> plan = PlanExport(source, *map, weights);
  if (!plan.ok()) return plan.status();
  std::vector<Shard> shards = PlanShards(source, *plan, options.max_shard_size);
  for (Shard& shard : shards) {
    if (absl::Status status = WriteShard(source, shard, *map, folder); !status.ok()) return status;
  }
  if (absl::Status status = WriteIndex(source, shards, folder); !status.ok()) return status;

  const nlohmann::ordered_json config_json = ExportConfig(source.config(), CommonDtype(*plan), plan->quantized);
  if (absl::Status status = folder.Write("config.json", config_json.dump(2) + "\n"); !status.ok()) return status;
  if (!source.HasFile("generation_config.json")) {
    const std::string generation = DeriveGenerationConfig(source.config()).dump(2) + "\n";
    if (absl::Status status = folder.Write("generation_config.json", generation); !status.ok()) return status;
  }
  for (const std::string& path : source.carried_files()) {
    if (absl::Status status = CarryOver(source, path, folder); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/object_store.h"
#include "worker/checkpoint/safetensors.h"

namespace temper {

// The proof of an export (export_proof.h), at the top of its directory.
inline constexpr std::string_view kVerificationName = "verification.json";

// A tensor of a repository, and where it is.
struct RepositoryTensor {
  SafetensorsEntry entry;
  size_t file = 0;  // index into weight_files()
};

// A model directory in Hugging Face (HF) layout: config.json, model.safetensors or an index with its shards, tokenizer
// files. Opening it reads headers only; weights are mapped, or read when they are asked for. Any thread.
class HfRepository {
 public:
  // `uri` as ObjectStore::Open takes it. Errors say what is missing and what to do: NOT_FOUND (no such
  // directory), FAILED_PRECONDITION (not a model, weights in pickle files only), INVALID_ARGUMENT (config.json or the
  // index is malformed), DATA_LOSS (a weight file is damaged, or the index and the files disagree).
  static absl::StatusOr<std::unique_ptr<HfRepository>> Open(std::string_view uri);

  // An absolute path, or its URI where it is not on this machine.
  const std::string& directory() const { return directory_; }
  const ObjectStore& store() const { return *store_; }
  // config.json, keys in the file's order.
  const nlohmann::ordered_json& config() const { return config_; }
  // generation_config.json and the like, when there.
  bool HasFile(std::string_view path) const;

  // File names relative to the directory, sorted.
  const std::vector<std::string>& weight_files() const { return weight_files_; }
  // `metadata` of the index; empty for a single file.
  const nlohmann::ordered_json& index_metadata() const { return index_metadata_; }
  // In the order of the files and of the bytes inside a file.
  const std::vector<RepositoryTensor>& tensors() const { return tensors_; }
  const RepositoryTensor* FindTensor(std::string_view name) const;
  // From now on tensors have the names that `new_name` gives them; without one they are as if not there.
  void Rename(const std::function<std::optional<std::string>(std::string_view name)>& new_name);
  // From now on it has this tensor as well, at the end of its last file. No other may have the name; `dtype` is one
  // that torch knows.
  void Add(const std::string& name, const std::string& dtype, const at::Tensor& values);
  // From now on config.json is this.
  void set_config(nlohmann::ordered_json config) { config_ = std::move(config); }

  // As SafetensorsFile has them.
  absl::StatusOr<at::Tensor> Tensor(const RepositoryTensor& tensor) const;
  absl::StatusOr<at::Tensor> Rows(const RepositoryTensor& tensor, int64_t row, int64_t rows) const;
  void Release(const RepositoryTensor& tensor) const;
  const SafetensorsFile& File(size_t index) const { return *weights_[index]; }

  // Files that an export carries over as they are: everything but config.json, weights in any format and what temper
  // itself writes into an export. Relative paths, sorted.
  const std::vector<std::string>& carried_files() const { return carried_files_; }

 private:
  HfRepository() = default;
  absl::Status ListFiles();
  absl::Status ReadConfig();
  absl::Status ReadIndex(std::map<std::string, std::string>& file_of);
  absl::Status OpenWeights();
  void ChooseCarriedFiles();
  absl::StatusOr<nlohmann::ordered_json> ReadObject(const char* path) const;
  absl::Status NoWeights() const;

  std::unique_ptr<ObjectStore> store_;
  std::string directory_;
  std::set<std::string, std::less<>> files_;  // all but those of tools and of other models below it
  nlohmann::ordered_json config_;
  nlohmann::ordered_json index_metadata_ = nlohmann::ordered_json::object();
  std::vector<std::string> weight_files_;
  std::vector<std::unique_ptr<SafetensorsFile>> weights_;
  std::vector<RepositoryTensor> tensors_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<std::string, at::Tensor, std::less<>> added_;  // what is in no file
  std::vector<std::string> carried_files_;
};

}  // namespace temper

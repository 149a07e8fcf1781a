// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/hf_repository.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/failure.h"
#include "common/storage/object_store.h"
#include "common/storage/publication.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

constexpr char kConfig[] = "config.json";
constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
// Weights in formats that are not read, and so not carried over either: they would be those of another model.
constexpr std::string_view kOtherWeights[] = {".bin",  ".pt",   ".pth",       ".ckpt",    ".h5",
                                              ".gguf", ".onnx", ".onnx_data", ".msgpack", ".tflite"};

bool IsPickle(std::string_view name) {
  return name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") || name.ends_with(".ckpt");
}

absl::StatusOr<std::string> ReadText(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return absl::UnavailableError(absl::StrCat("cannot read ", path.string()));
  return text.str();
}

absl::StatusOr<nlohmann::ordered_json> ReadObject(const fs::path& path) {
  absl::StatusOr<std::string> text = ReadText(path);
  if (!text.ok()) return text.status();
  try {
    nlohmann::ordered_json json = nlohmann::ordered_json::parse(*text);
    if (json.is_object()) return json;
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": must hold a JSON object"));
  } catch (const nlohmann::ordered_json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", error.what()));
  }
}

// Damage in a model that a user brought is not repaired by trying again.
absl::Status OfTheModel(absl::Status status) {
  return status.code() == absl::StatusCode::kDataLoss ? WithCause(std::move(status), FailureCause::kUserInput) : status;
}

absl::Status NoWeights(const fs::path& directory) {
  std::vector<std::string> pickles;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    if (IsPickle(entry.path().filename().string())) pickles.push_back(entry.path().filename().string());
  }
  if (pickles.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(directory.string(), " has no weights: neither ", kSingleFile,
                                                      " nor ", kIndex, ". Get the model again"));
  }
  std::sort(pickles.begin(), pickles.end());
  return absl::FailedPreconditionError(
      absl::StrCat(directory.string(), " has its weights in pickle files only (", pickles[0],
                   "), which can run code when they are opened. Convert them where you trust them: transformers' "
                   "AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW) writes safetensors"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<HfRepository>> HfRepository::Open(std::string_view uri) {
  absl::StatusOr<std::unique_ptr<ObjectStore>> store = ObjectStore::Open(uri);
  if (!store.ok()) return store.status();
  std::unique_ptr<HfRepository> repository(new HfRepository());
  repository->directory_ = *(*store)->LocalPath("");
  const fs::path directory = repository->directory_;
  try {
    if (!fs::exists(directory)) {
      return absl::NotFoundError(absl::StrCat("model directory ", directory.string(), " does not exist"));
    }
    if (!fs::is_directory(directory)) {
      return absl::FailedPreconditionError(
          absl::StrCat(directory.string(), " is a file; give the model's directory, the one with ", kConfig));
    }
    absl::Status status = repository->ReadConfig();
    if (status.ok()) status = repository->OpenWeights();
    if (status.ok()) status = repository->ListCarriedFiles();
    if (!status.ok()) return OfTheModel(std::move(status));
  } catch (const fs::filesystem_error& error) {
    return WithCause(
        absl::PermissionDeniedError(absl::StrCat("cannot read ", error.path1().string(), ": ", error.code().message())),
        FailureCause::kUserInput);
  }
  return repository;
}

absl::Status HfRepository::ReadConfig() {
  const fs::path directory = directory_;
  if (!fs::exists(directory / kConfig)) {
    if (fs::exists(directory / "adapter_config.json")) {
      return absl::FailedPreconditionError(absl::StrCat(
          directory_, " is a PEFT adapter, not a model: merge it into its base model, or train the base model"));
    }
    return absl::FailedPreconditionError(
        absl::StrCat(directory_, " has no ", kConfig, ": it is not a model in Hugging Face layout"));
  }
  absl::StatusOr<nlohmann::ordered_json> config = ReadObject(directory / kConfig);
  if (!config.ok()) return config.status();
  config_ = *std::move(config);
  return absl::OkStatus();
}

absl::Status HfRepository::OpenWeights() {
  const fs::path directory = directory_;
  std::map<std::string, std::string> file_of;  // by the index: tensor → file
  const bool indexed = !fs::exists(directory / kSingleFile);
  if (!indexed) {
    weight_files_ = {kSingleFile};
  } else {
    if (!fs::exists(directory / kIndex)) return NoWeights(directory);
    absl::StatusOr<nlohmann::ordered_json> index = ReadObject(directory / kIndex);
    if (!index.ok()) return index.status();
    const auto map = index->find("weight_map");
    if (map == index->end() || !map->is_object() || map->empty()) {
      return absl::InvalidArgumentError(absl::StrCat(directory_, "/", kIndex, ": `weight_map` must be an object"));
    }
    for (const auto& [tensor, file] : map->items()) {
      const std::string name = file.is_string() ? file.get<std::string>() : "";
      if (!name.ends_with(".safetensors") || name.find('/') != name.npos) {
        return absl::InvalidArgumentError(absl::StrCat(directory_, "/", kIndex, ": tensor ", tensor,
                                                       " is said to be in ", file.dump(),
                                                       ", which is no safetensors file of this directory"));
      }
      file_of.emplace(tensor, name);
      weight_files_.push_back(name);
    }
    std::sort(weight_files_.begin(), weight_files_.end());
    weight_files_.erase(std::unique(weight_files_.begin(), weight_files_.end()), weight_files_.end());
    if (index->contains("metadata") && (*index)["metadata"].is_object()) index_metadata_ = (*index)["metadata"];
  }

  for (size_t i = 0; i < weight_files_.size(); ++i) {
    const fs::path path = directory / weight_files_[i];
    if (!fs::exists(path)) {
      return absl::DataLossError(
          absl::StrCat(directory_, "/", kIndex, " names ", weight_files_[i], ", which does not exist: get it again"));
    }
    absl::StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::Open(path.string());
    if (!file.ok()) return file.status();
    for (const SafetensorsEntry& entry : (*file)->header().entries) {
      if (indexed) {
        const auto place = file_of.find(entry.name);
        if (place == file_of.end() || place->second != weight_files_[i]) {
          return absl::DataLossError(
              absl::StrCat(path.string(), " holds tensor ", entry.name, ", which the index ",
                           place == file_of.end() ? "does not know" : absl::StrCat("says to be in ", place->second)));
        }
        file_of.erase(place);
      }
      by_name_.emplace(entry.name, tensors_.size());
      tensors_.push_back({entry, i});
    }
    files_.push_back(*std::move(file));
  }
  if (!file_of.empty()) {
    return absl::DataLossError(absl::StrCat(directory_, "/", file_of.begin()->second, " lacks tensor ",
                                            file_of.begin()->first, ", which the index says to be there"));
  }
  return absl::OkStatus();
}

absl::Status HfRepository::ListCarriedFiles() {
  const fs::path directory = directory_;
  for (fs::recursive_directory_iterator it(directory), end; it != end; ++it) {
    const std::string name = it->path().filename().string();
    if (it->is_directory()) {
      // What tools keep about a download or a clone is no part of the model; neither is an adapter beside it.
      const bool adapter = fs::exists(it->path() / "adapter_config.json");
      if (name == ".git" || name == ".cache" || adapter) it.disable_recursion_pending();
      continue;
    }
    const std::string path = it->path().lexically_relative(directory).generic_string();
    const bool weights = name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") ||
                         name.ends_with(".bin.index.json") ||
                         std::any_of(std::begin(kOtherWeights), std::end(kOtherWeights),
                                     [&](std::string_view suffix) { return name.ends_with(suffix); });
    if (weights || path == kConfig || path == kManifestName || path == kVerificationName) continue;
    if (!it->is_regular_file()) continue;  // a dangling link, a socket
    carried_files_.push_back(path);
  }
  std::sort(carried_files_.begin(), carried_files_.end());
  return absl::OkStatus();
}

bool HfRepository::HasFile(std::string_view path) const { return fs::exists(fs::path(directory_) / path); }

void HfRepository::Rename(const std::function<std::optional<std::string>(std::string_view name)>& new_name) {
  std::vector<RepositoryTensor> kept;
  by_name_.clear();
  for (RepositoryTensor& tensor : tensors_) {
    std::optional<std::string> name = new_name(tensor.entry.name);
    if (!name) continue;
    tensor.entry.name = *std::move(name);
    by_name_.emplace(tensor.entry.name, kept.size());
    kept.push_back(std::move(tensor));
  }
  tensors_ = std::move(kept);
}

const RepositoryTensor* HfRepository::FindTensor(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

absl::StatusOr<at::Tensor> HfRepository::Tensor(const RepositoryTensor& tensor) const {
  return files_[tensor.file]->Tensor(tensor.entry);
}

std::string_view HfRepository::Bytes(const RepositoryTensor& tensor) const {
  return files_[tensor.file]->Bytes(tensor.entry);
}

void HfRepository::Release(const RepositoryTensor& tensor) const { files_[tensor.file]->Release(tensor.entry); }

}  // namespace temper

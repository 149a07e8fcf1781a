// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/hf_repository.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/failure.h"
#include "common/storage/publication.h"
#include "common/storage/storage_uri.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

constexpr char kConfig[] = "config.json";
constexpr char kAdapterConfig[] = "adapter_config.json";
constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
// Weights in formats that are not read, and so not carried over either: they would be those of another model.
constexpr std::string_view kOtherWeights[] = {".bin",  ".pt",   ".pth",       ".ckpt",    ".h5",
                                              ".gguf", ".onnx", ".onnx_data", ".msgpack", ".tflite"};

bool IsPickle(std::string_view name) {
  return name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") || name.ends_with(".ckpt");
}

// Damage in a model that a user brought is not repaired by trying again.
absl::Status OfTheModel(absl::Status status) {
  return status.code() == absl::StatusCode::kDataLoss ? WithCause(std::move(status), FailureCause::kUserInput) : status;
}

// What tools keep about a download or a clone is no part of the model.
bool IsOfTools(std::string_view directory) { return directory == ".git" || directory == ".cache"; }

bool IsWeights(std::string_view name) {
  return name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") ||
         name.ends_with(".bin.index.json") ||
         std::any_of(std::begin(kOtherWeights), std::end(kOtherWeights),
                     [&](std::string_view suffix) { return name.ends_with(suffix); });
}

// Below a directory of this machine: links are followed, tools' directories are not entered.
absl::StatusOr<std::set<std::string, std::less<>>> FilesBelow(const fs::path& directory) {
  std::set<std::string, std::less<>> files;
  try {
    for (fs::recursive_directory_iterator it(directory), end; it != end; ++it) {
      if (it->is_directory()) {
        if (IsOfTools(it->path().filename().string())) it.disable_recursion_pending();
      } else if (it->is_regular_file()) {  // no dangling link, no socket
        files.insert(it->path().lexically_relative(directory).generic_string());
      }
    }
  } catch (const fs::filesystem_error& error) {
    return WithCause(
        absl::PermissionDeniedError(absl::StrCat("cannot read ", error.path1().string(), ": ", error.code().message())),
        FailureCause::kUserInput);
  }
  return files;
}

absl::StatusOr<std::set<std::string, std::less<>>> FilesOf(const ObjectStore& store) {
  if (const auto local = store.LocalPath("")) return FilesBelow(*local);
  const absl::StatusOr<std::vector<ObjectInfo>> objects = store.List("");
  if (!objects.ok()) return objects.status();
  std::set<std::string, std::less<>> files;
  for (const ObjectInfo& object : *objects) {
    const std::vector<std::string> components = absl::StrSplit(object.path, '/');
    if (std::none_of(components.begin(), std::prev(components.end()), IsOfTools)) files.insert(object.path);
  }
  return files;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HfRepository>> HfRepository::Open(std::string_view uri) {
  absl::StatusOr<std::unique_ptr<ObjectStore>> store = ObjectStore::Open(uri);
  if (!store.ok()) return store.status();
  std::unique_ptr<HfRepository> repository(new HfRepository());
  repository->directory_ = (*store)->LocalPath("").value_or((*store)->uri());
  repository->store_ = *std::move(store);
  absl::Status status = repository->ListFiles();
  if (status.ok()) status = repository->ReadConfig();
  if (status.ok()) status = repository->OpenWeights();
  if (!status.ok()) return OfTheModel(std::move(status));
  repository->ChooseCarriedFiles();
  return repository;
}

absl::Status HfRepository::ListFiles() {
  const std::optional<std::string> local = store_->LocalPath("");
  std::error_code error;
  const fs::file_status found = local ? fs::status(*local, error) : fs::file_status(fs::file_type::directory);
  if (local && found.type() == fs::file_type::regular) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory_, " is a file; give the model's directory, the one with ", kConfig));
  }
  absl::StatusOr<std::set<std::string, std::less<>>> files = std::set<std::string, std::less<>>();
  const bool exists = found.type() != fs::file_type::not_found;
  if (exists) files = FilesOf(*store_);
  if (!files.ok()) return files.status();
  // A remote directory is what lies below it.
  if (!exists || (!local && files->empty())) {
    return absl::NotFoundError(absl::StrCat("model directory ", directory_, " does not exist"));
  }
  files_ = *std::move(files);
  return absl::OkStatus();
}

absl::StatusOr<nlohmann::ordered_json> HfRepository::ReadObject(const char* path) const {
  absl::StatusOr<std::string> text = store_->Read(path);
  if (!text.ok()) return text.status();
  const std::string place = UriBelow(directory_, path);
  try {
    nlohmann::ordered_json json = nlohmann::ordered_json::parse(*text);
    if (json.is_object()) return json;
    return absl::InvalidArgumentError(absl::StrCat(place, ": must hold a JSON object"));
  } catch (const nlohmann::ordered_json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": ", error.what()));
  }
}

absl::Status HfRepository::ReadConfig() {
  if (!HasFile(kConfig)) {
    if (HasFile(kAdapterConfig)) {
      return absl::FailedPreconditionError(absl::StrCat(
          directory_, " is a PEFT adapter, not a model: merge it into its base model, or train the base model"));
    }
    return absl::FailedPreconditionError(
        absl::StrCat(directory_, " has no ", kConfig, ": it is not a model in Hugging Face layout"));
  }
  absl::StatusOr<nlohmann::ordered_json> config = ReadObject(kConfig);
  if (!config.ok()) return config.status();
  config_ = *std::move(config);
  return absl::OkStatus();
}

absl::Status HfRepository::NoWeights() const {
  const auto pickle = std::find_if(files_.begin(), files_.end(), [](const std::string& file) {
    return file.find('/') == file.npos && IsPickle(file);
  });
  if (pickle == files_.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory_, " has no weights: neither ", kSingleFile, " nor ", kIndex, ". Get the model again"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat(directory_, " has its weights in pickle files only (", *pickle,
                   "), which can run code when they are opened. Convert them where you trust them: transformers' "
                   "AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW) writes safetensors"));
}

// `file_of`: tensor → file.
absl::Status HfRepository::ReadIndex(std::map<std::string, std::string>& file_of) {
  absl::StatusOr<nlohmann::ordered_json> index = ReadObject(kIndex);
  if (!index.ok()) return index.status();
  const std::string place = UriBelow(directory_, kIndex);
  const auto map = index->find("weight_map");
  if (map == index->end() || !map->is_object() || map->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": `weight_map` must be an object"));
  }
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (!name.ends_with(".safetensors") || name.find('/') != name.npos) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": tensor ", tensor, " is said to be in ", file.dump(),
                                                     ", which is no safetensors file of this directory"));
    }
    file_of.emplace(tensor, name);
    weight_files_.push_back(name);
  }
  std::sort(weight_files_.begin(), weight_files_.end());
  weight_files_.erase(std::unique(weight_files_.begin(), weight_files_.end()), weight_files_.end());
  if (index->contains("metadata") && (*index)["metadata"].is_object()) index_metadata_ = (*index)["metadata"];
  return absl::OkStatus();
}

absl::Status HfRepository::OpenWeights() {
  std::map<std::string, std::string> file_of;  // by the index
  const bool indexed = !HasFile(kSingleFile);
  if (!indexed) {
    weight_files_ = {kSingleFile};
  } else {
    if (!HasFile(kIndex)) return NoWeights();
    if (absl::Status read = ReadIndex(file_of); !read.ok()) return read;
  }
  for (size_t i = 0; i < weight_files_.size(); ++i) {
    if (!HasFile(weight_files_[i])) {
      return absl::DataLossError(absl::StrCat(UriBelow(directory_, kIndex), " names ", weight_files_[i],
                                              ", which does not exist: get it again"));
    }
    absl::StatusOr<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::Open(*store_, weight_files_[i]);
    if (!file.ok()) return file.status();
    for (const SafetensorsEntry& entry : (*file)->header().entries) {
      if (indexed) {
        const auto place = file_of.find(entry.name);
        if (place == file_of.end() || place->second != weight_files_[i]) {
          return absl::DataLossError(
              absl::StrCat((*file)->path(), " holds tensor ", entry.name, ", which the index ",
                           place == file_of.end() ? "does not know" : absl::StrCat("says to be in ", place->second)));
        }
        file_of.erase(place);
      }
      by_name_.emplace(entry.name, tensors_.size());
      tensors_.push_back({entry, i});
    }
    weights_.push_back(*std::move(file));
  }
  if (!file_of.empty()) {
    return absl::DataLossError(absl::StrCat(UriBelow(directory_, file_of.begin()->second), " lacks tensor ",
                                            file_of.begin()->first, ", which the index says to be there"));
  }
  return absl::OkStatus();
}

void HfRepository::ChooseCarriedFiles() {
  // An adapter beside the model is no part of it either.
  const auto in_adapter = [this](const std::string& path) {
    for (size_t slash = path.find('/'); slash != path.npos; slash = path.find('/', slash + 1)) {
      if (HasFile(absl::StrCat(path.substr(0, slash + 1), kAdapterConfig))) return true;
    }
    return false;
  };
  for (const std::string& path : files_) {
    const bool ours = path == kConfig || path == kManifestName || path == kVerificationName;
    if (!ours && !IsWeights(path) && !in_adapter(path)) carried_files_.push_back(path);
  }
}

bool HfRepository::HasFile(std::string_view path) const { return files_.contains(path); }

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

void HfRepository::Add(const std::string& name, const std::string& dtype, const at::Tensor& values) {
  const at::Tensor stored = values.to(*SafetensorsScalarType(dtype)).contiguous();
  RepositoryTensor tensor = {.entry = {.name = name, .dtype = dtype, .shape = stored.sizes().vec()},
                             .file = weight_files_.size() - 1};
  tensor.entry.end = static_cast<int64_t>(stored.nbytes());
  by_name_.emplace(name, tensors_.size());
  tensors_.push_back(std::move(tensor));
  added_.emplace(name, stored);
}

const RepositoryTensor* HfRepository::FindTensor(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

absl::StatusOr<at::Tensor> HfRepository::Tensor(const RepositoryTensor& tensor) const {
  if (const auto added = added_.find(tensor.entry.name); added != added_.end()) return added->second;
  return weights_[tensor.file]->Tensor(tensor.entry);
}

absl::StatusOr<at::Tensor> HfRepository::Rows(const RepositoryTensor& tensor, int64_t row, int64_t rows) const {
  if (const auto added = added_.find(tensor.entry.name); added != added_.end())
    return added->second.narrow(0, row, rows);
  return weights_[tensor.file]->Rows(tensor.entry, row, rows);
}

void HfRepository::Release(const RepositoryTensor& tensor) const {
  if (!added_.contains(tensor.entry.name)) weights_[tensor.file]->Release(tensor.entry);
}

}  // namespace temper

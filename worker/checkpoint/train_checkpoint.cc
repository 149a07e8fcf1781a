// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/train_checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/failure.h"
#include "common/fault_point.h"
#include "worker/checkpoint/export_plan.h"
#include "worker/checkpoint/hf_export.h"
#include "worker/checkpoint/tensor_map.h"

namespace temper {
namespace {

constexpr int kFormatVersion = 2;
constexpr char kWeights[] = "weights";
constexpr char kOptimizer[] = "optimizer/state.safetensors";
constexpr char kTrainer[] = "trainer.json";

std::string_view BytesOf(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::string DtypeName(at::ScalarType type) {
  if (type == at::kShort) return "I16";
  return type == at::kByte ? "U8" : "F32";
}

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

// In which dtypes the source stores the parts of each parameter; only their set matters.
absl::StatusOr<std::map<const Parameter*, std::set<std::string>>> StoredDtypes(const NativeRepository& model,
                                                                               std::span<const WeightView> views) {
  const auto map = TensorMap::Build(*model.family, model.config, views);
  if (!map.ok()) return map.status();
  std::map<const Parameter*, std::set<std::string>> dtypes;
  for (const TensorBinding& binding : map->bindings()) {
    const std::string stored = StoredDtype(*model.repository, binding);
    if (stored.empty()) continue;  // a tied head that is not stored
    for (const size_t part : binding.parts) dtypes[views[part].parameter].insert(stored);
  }
  return dtypes;
}

// What is missing in weights/ of a parameter's master; an undefined tensor when nothing is.
NamedTensor MissingPart(Parameter& parameter, const std::set<std::string>& stored) {
  if (stored == std::set<std::string>{"F32"}) return {};
  if (parameter.low.defined() && stored == std::set<std::string>{"BF16"}) {
    return {absl::StrCat("low/", parameter.name), parameter.low};
  }
  const bool whole = parameter.weight.scalar_type() == at::kFloat;  // which is written as it is, without a copy
  return {absl::StrCat("master/", parameter.name),
          whole ? parameter.weight : LoadMaster({parameter.name, &parameter, 0, parameter.weight.size(0)})};
}

absl::StatusOr<std::vector<NamedTensor>> OptimizerTensors(const CheckpointSource& source,
                                                          const TrainSnapshot& snapshot) {
  std::map<const Parameter*, std::set<std::string>> dtypes;
  if (!source.peft) {
    auto stored = StoredDtypes(*source.model, snapshot.views);
    if (!stored.ok()) return stored.status();
    dtypes = *std::move(stored);
  }
  std::vector<NamedTensor> tensors;
  for (const Moments& moments : snapshot.moments) {
    const std::string& name = moments.parameter->name;
    tensors.push_back({absl::StrCat("first_moment/", name), moments.first});
    tensors.push_back({absl::StrCat("second_moment/", name), moments.second});
    if (NamedTensor missing = MissingPart(*moments.parameter, dtypes[moments.parameter]); missing.tensor.defined()) {
      tensors.push_back(std::move(missing));
    }
  }
  tensors.push_back({"rng_state", snapshot.rng_state});
  return tensors;
}

absl::Status WriteOptimizer(const std::vector<NamedTensor>& tensors, Publication& publication) {
  std::vector<SafetensorsEntry> entries;
  for (const NamedTensor& named : tensors) {
    entries.push_back({named.name, DtypeName(named.tensor.scalar_type()), named.tensor.sizes().vec()});
  }
  auto file = publication.Create(kOptimizer);
  if (!file.ok()) return file.status();
  absl::Status status = (*file)->Write(BuildSafetensorsHeader(entries, {}));
  for (const NamedTensor& named : tensors) {
    if (status.ok()) status = (*file)->Write(BytesOf(named.tensor.contiguous()));
  }
  return status.ok() ? (*file)->Close() : status;
}

absl::Status WriteWeights(const CheckpointSource& source, const TrainSnapshot& snapshot, PublishedFolder folder) {
  if (!source.peft) {
    return ExportModel(*source.model->repository, *source.model->family, source.model->config, snapshot.views,
                       {.max_shard_size = source.max_shard_size}, folder);
  }
  auto tensors =
      TensorsOfModules(source.peft->modules_to_save, *source.model->family, source.model->config, snapshot.views);
  if (!tensors.ok()) return tensors.status();
  std::vector<const LoraAdapter*> adapters;
  for (const LoraAdapter& adapter : snapshot.adapters) adapters.push_back(&adapter);
  for (AdapterTensor& tensor : TensorsOfAdapters(source.sites, adapters, AdapterFormat::kPeft)) {
    tensors->push_back(std::move(tensor));
  }
  return ExportPeftAdapter(*source.peft, *std::move(tensors), folder);
}

nlohmann::ordered_json TrainerJson(const TrainPosition& position, const std::optional<PeftConfig>& peft) {
  nlohmann::ordered_json json = {
      {"format_version", kFormatVersion},
      {"step", position.step},
      {"updates", position.updates},
      {"total_tokens", position.total_tokens},
      {"seconds", position.seconds},
      {"data", {{"epoch", position.data_epoch}, {"block", position.data_block}, {"row", position.data_row}}},
      {"numerics",
       {{"skipped_in_a_row", position.skipped_in_a_row},
        {"recent_losses", position.recent_losses},
        {"recent_norms", position.recent_norms}}},
  };
  if (position.validated_step > 0) {
    json["validation"] = {{"step", position.validated_step},
                          {"best_step", position.best_step},
                          {"best_loss", position.best_loss},
                          {"improved_loss", position.improved_loss},
                          {"validations_since_improvement", position.validations_since_improvement}};
  }
  if (peft) {
    json["lora"] = {{"rank", peft->rank},
                    {"alpha", peft->alpha},
                    {"rslora", peft->rslora},
                    {"dora", peft->dora},
                    {"modules_to_save", peft->modules_to_save}};
  }
  return json;
}

// What there is beside rank and alpha.
std::string Kind(const PeftConfig& peft) {
  return absl::StrCat("rslora: ", peft.rslora ? "true" : "false", ", dora: ", peft.dora ? "true" : "false",
                      ", modules_to_save: [", absl::StrJoin(peft.modules_to_save, ", "), "]");
}

absl::Status Damaged(const std::string& what) { return WithCause(absl::DataLossError(what), FailureCause::kStorage); }

}  // namespace

absl::Status WriteTrainCheckpoint(const CheckpointSource& source, const TrainSnapshot& snapshot,
                                  Publication& publication) {
  absl::Status status = WriteWeights(source, snapshot, PublishedFolder(publication, kWeights));
  if (!status.ok()) return status;
  FaultPoint("rank.checkpoint.weights_written");
  const auto tensors = OptimizerTensors(source, snapshot);
  if (!tensors.ok()) return tensors.status();
  if (status = WriteOptimizer(*tensors, publication); !status.ok()) return status;
  return publication.Write(kTrainer, TrainerJson(snapshot.position, source.peft).dump(2) + "\n");
}

absl::StatusOr<std::unique_ptr<TrainCheckpoint>> TrainCheckpoint::Open(std::string_view uri) {
  const auto store = ObjectStore::Open(uri);
  if (!store.ok()) return store.status();
  const auto manifest = ReadManifest(**store, "");
  if (absl::IsNotFound(manifest.status())) {
    return absl::NotFoundError(
        absl::StrCat(std::string(uri), " is not a committed checkpoint: it has no ", std::string(kManifestName)));
  }
  if (!manifest.ok()) return manifest.status();
  if (absl::Status whole = VerifyFiles(**store, "", *manifest); !whole.ok()) return whole;

  std::unique_ptr<TrainCheckpoint> checkpoint(new TrainCheckpoint);
  checkpoint->uri_ = (*store)->uri();
  const auto trainer = (*store)->Read(kTrainer);
  if (!trainer.ok()) {
    return Damaged(absl::StrCat((*store)->uri(), " is not a training checkpoint: ", trainer.status().message()));
  }
  if (absl::Status status = checkpoint->ReadTrainer(*trainer); !status.ok()) return status;
  const auto path = (*store)->LocalPath(kOptimizer);
  if (!path) return absl::UnimplementedError(absl::StrCat((*store)->uri(), " is not on this machine"));
  auto optimizer = SafetensorsFile::Open(*path);
  if (!optimizer.ok()) return optimizer.status();
  checkpoint->optimizer_ = *std::move(optimizer);
  return checkpoint;
}

absl::Status TrainCheckpoint::ReadTrainer(std::string_view text) {
  const std::string file = absl::StrCat(uri_, "/", kTrainer);
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Damaged(absl::StrCat(file, " is not a JSON object"));
  // Only type errors and missing keys can be thrown below.
  try {
    const int version = json.at("format_version").get<int>();
    if (version != kFormatVersion) {
      return Damaged(absl::StrCat(file, " has format version ", version, ", this build reads version ", kFormatVersion,
                                  ": use the temper that wrote it, or a newer one"));
    }
    position_.step = json.at("step").get<int64_t>();
    position_.total_tokens = json.at("total_tokens").get<int64_t>();
    position_.updates = json.at("updates").get<int64_t>();
    position_.seconds = json.at("seconds").get<double>();
    const nlohmann::json& data = json.at("data");
    position_.data_epoch = data.at("epoch").get<int64_t>();
    position_.data_block = data.at("block").get<int64_t>();
    position_.data_row = data.at("row").get<int64_t>();
    const nlohmann::json& numerics = json.at("numerics");
    position_.skipped_in_a_row = numerics.at("skipped_in_a_row").get<int32_t>();
    position_.recent_losses = numerics.at("recent_losses").get<std::vector<double>>();
    position_.recent_norms = numerics.at("recent_norms").get<std::vector<double>>();
    if (json.contains("validation")) {
      const nlohmann::json& validation = json["validation"];
      position_.validated_step = validation.at("step").get<int64_t>();
      position_.best_step = validation.at("best_step").get<int64_t>();
      position_.best_loss = validation.at("best_loss").get<double>();
      // Checkpoints of earlier builds lack these.
      position_.improved_loss = validation.value("improved_loss", position_.best_loss);
      position_.validations_since_improvement = validation.value("validations_since_improvement", 0);
    }
    if (json.contains("lora")) {
      const nlohmann::json& lora = json["lora"];
      peft_ = PeftConfig{.rank = lora.at("rank").get<int64_t>(),
                         .alpha = lora.at("alpha").get<double>(),
                         .rslora = lora.value("rslora", false),
                         .dora = lora.value("dora", false),
                         .modules_to_save = lora.value("modules_to_save", std::vector<std::string>())};
    }
  } catch (const nlohmann::json::exception& error) {
    return Damaged(absl::StrCat(file, ": ", error.what()));
  }
  return absl::OkStatus();
}

absl::StatusOr<NativeRepository> TrainCheckpoint::OpenModel(const NativeRepository& base,
                                                            const std::optional<PeftConfig>& peft) const {
  const auto other = [this](auto... what) {
    return absl::InvalidArgumentError(absl::StrCat("the checkpoint ", uri_, " ", what...));
  };
  if (peft_.has_value() != peft.has_value()) {
    return peft_ ? other("holds adapters, but the job has no lora")
                 : other("holds a whole model, but the job has lora");
  }
  if (peft_ && (peft_->rank != peft->rank || peft_->alpha != peft->alpha)) {
    return other("has adapters of rank ", peft_->rank, " and alpha ", peft_->alpha, ", the job asks for rank ",
                 peft->rank, " and alpha ", peft->alpha);
  }
  if (peft_ && Kind(*peft_) != Kind(*peft)) {
    return other("was written with ", Kind(*peft_), ", the job asks for ", Kind(*peft));
  }
  auto model = OpenNativeRepository(peft_ ? base.repository->directory() : absl::StrCat(uri_, "/", kWeights));
  if (!model.ok()) return model.status();
  if (model->config != base.config) {
    return other(
        "is of another model than the job's: their config.json differ. Give the model that it was trained from");
  }
  return model;
}

absl::StatusOr<at::Tensor> TrainCheckpoint::Find(const std::string& name) const {
  const auto& entries = optimizer_->header().entries;
  const auto entry = std::find_if(entries.begin(), entries.end(), [&](const auto& each) { return each.name == name; });
  if (entry == entries.end()) return at::Tensor();
  return optimizer_->Tensor(*entry);
}

absl::Status TrainCheckpoint::Restore(std::span<const Moments> moments) const {
  const at::NoGradGuard no_grad;
  const auto find = [&](std::string_view kind, const Parameter& parameter) -> absl::StatusOr<at::Tensor> {
    auto tensor = Find(absl::StrCat(std::string(kind), "/", parameter.name));
    if (tensor.ok() && tensor->defined() && tensor->sizes() != parameter.weight.sizes()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the checkpoint ", uri_, " is of another model: ", parameter.name, " has another shape"));
    }
    return tensor;
  };
  for (const Moments& state : moments) {
    Parameter& parameter = *state.parameter;
    const auto first = find("first_moment", parameter);
    if (!first.ok()) return first.status();
    const auto second = find("second_moment", parameter);
    if (!second.ok()) return second.status();
    if (!first->defined() || !second->defined()) {
      return absl::InvalidArgumentError(absl::StrCat("the checkpoint ", uri_, " has no optimizer state of ",
                                                     parameter.name,
                                                     ": it is of another model, or trained other parameters"));
    }
    state.first.copy_(*first);
    state.second.copy_(*second);

    const WeightView whole = {parameter.name, &parameter, 0, parameter.weight.size(0)};
    const auto master = find("master", parameter);
    if (!master.ok()) return master.status();
    const auto low = find("low", parameter);
    if (!low.ok()) return low.status();
    if (master->defined()) {
      StoreMaster(whole, *master);
    } else if (low->defined()) {
      // weights/ holds the high half: bits(master) = (high << 16) + low.
      StoreMaster(whole, (LoadMaster(whole).view(at::kInt) + low->to(at::kInt)).view(at::kFloat));
    }
  }
  const auto rng = Find("rng_state");
  if (!rng.ok()) return rng.status();
  if (rng->defined()) {
    at::Generator generator = at::detail::getDefaultCPUGenerator();
    generator.set_state(rng->clone());
  }
  return absl::OkStatus();
}

}  // namespace temper

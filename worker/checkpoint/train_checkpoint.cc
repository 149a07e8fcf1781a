// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/train_checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/failure.h"
#include "common/fault_point.h"
#include "common/storage/storage_uri.h"
#include "worker/checkpoint/export_plan.h"
#include "worker/checkpoint/hf_export.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/parallel/agree.h"

namespace temper {
namespace {

constexpr int kFormatVersion = 3;
// The oldest that is read: one optimizer/state.safetensors, which does not say that each tensor is a whole parameter's.
constexpr int kWithoutPlaces = 2;
constexpr char kWeights[] = "weights";
constexpr char kOptimizer[] = "optimizer/state";
constexpr char kRngState[] = "rng_state";
constexpr char kTrainer[] = "trainer.json";

std::string DtypeName(at::ScalarType type) {
  if (type == at::kShort) return "I16";
  return type == at::kByte ? "U8" : "F32";
}

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

// What a rank has of a parameter: all of it, or the elements from `begin` on.
struct Place {
  const Parameter* whole = nullptr;
  int64_t begin = 0;
};

using PlaceOf = std::function<Place(const Parameter&)>;

// Of parameters that are whole, but for these slices' parts.
template <typename Slices>
PlaceOf FindPlaces(const Slices& slices) {
  std::map<const Parameter*, Place> places;
  for (const ShardSlice* slice : slices) places[&slice->part] = {slice->whole, slice->begin};
  return [places = std::move(places)](const Parameter& parameter) {
    const auto place = places.find(&parameter);
    return place == places.end() ? Place{&parameter, 0} : place->second;
  };
}

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

struct OptimizerState {
  std::vector<NamedTensor> tensors;
  std::map<std::string, std::string> metadata;  // where each parameter's lie
};

absl::StatusOr<OptimizerState> CollectOptimizer(const CheckpointSource& source, const TrainSnapshot& snapshot) {
  std::map<const Parameter*, std::set<std::string>> dtypes;
  if (!source.peft) {
    auto stored = StoredDtypes(*source.model, snapshot.views);
    if (!stored.ok()) return stored.status();
    dtypes = *std::move(stored);
  }
  std::vector<const ShardSlice*> slices;
  for (const ShardSlice& slice : snapshot.slices) slices.push_back(&slice);
  const PlaceOf place_of = FindPlaces(slices);
  OptimizerState state;
  for (const Moments& moments : snapshot.moments) {
    const std::string& name = moments.parameter->name;
    const Place place = place_of(*moments.parameter);
    state.metadata[name] = absl::StrCat(place.begin, "/", place.whole->weight.numel());
    state.tensors.push_back({absl::StrCat("first_moment/", name), moments.first});
    state.tensors.push_back({absl::StrCat("second_moment/", name), moments.second});
    if (NamedTensor missing = MissingPart(*moments.parameter, dtypes[place.whole]); missing.tensor.defined()) {
      state.tensors.push_back(std::move(missing));
    }
  }
  state.tensors.push_back({kRngState, snapshot.rng_state});
  return state;
}

absl::Status WriteOptimizer(const OptimizerState& state, Publication& publication, const ProcessGroup* ranks) {
  std::vector<SafetensorsEntry> entries;
  for (const NamedTensor& named : state.tensors) {
    entries.push_back({named.name, DtypeName(named.tensor.scalar_type()), {named.tensor.numel()}});
  }
  const int rank = ranks == nullptr ? 0 : ranks->rank(), size = ranks == nullptr ? 1 : ranks->size();
  auto file = publication.Create(absl::StrFormat("%s-%05d-of-%05d.safetensors", kOptimizer, rank + 1, size));
  if (!file.ok()) return file.status();
  absl::Status status = (*file)->Write(BuildSafetensorsHeader(entries, state.metadata));
  for (const NamedTensor& named : state.tensors) {
    if (status.ok()) status = (*file)->Write(BytesOf(named.tensor.contiguous()));
  }
  return status.ok() ? (*file)->Close() : status;
}

absl::Status WriteWeights(const CheckpointSource& source, const TrainSnapshot& snapshot, PublishedFolder folder,
                          ProcessGroup* ranks) {
  if (!source.peft) {
    return ExportModel(*source.model->repository, *source.model->family, source.model->config, snapshot.views,
                       {.max_shard_size = source.max_shard_size, .ranks = ranks}, folder);
  }
  auto tensors =
      TensorsOfModules(source.peft->modules_to_save, *source.model->family, source.model->config, snapshot.views);
  if (!tensors.ok()) return tensors.status();
  std::vector<const LoraAdapter*> adapters;
  for (const LoraAdapter& adapter : snapshot.adapters) adapters.push_back(&adapter);
  for (AdapterTensor& tensor : TensorsOfAdapters(source.sites, adapters, AdapterFormat::kPeft)) {
    tensors->push_back(std::move(tensor));
  }
  return ExportPeftAdapter(*source.peft, *std::move(tensors), folder, ranks);
}

nlohmann::ordered_json TrainerJson(const TrainSnapshot& snapshot, const std::optional<PeftConfig>& peft) {
  const TrainPosition& position = snapshot.position;
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
  for (const std::string& report : snapshot.unheard) json["unheard"].push_back(nlohmann::ordered_json::parse(report));
  return json;
}

// What there is beside rank and alpha.
std::string Kind(const PeftConfig& peft) {
  return absl::StrCat("rslora: ", peft.rslora ? "true" : "false", ", dora: ", peft.dora ? "true" : "false",
                      ", modules_to_save: [", absl::StrJoin(peft.modules_to_save, ", "), "]");
}

// "BEGIN/SIZE"
bool ReadPlace(const std::string& text, int64_t& begin, int64_t& size) {
  const std::vector<std::string> numbers = absl::StrSplit(text, '/');
  return numbers.size() == 2 && absl::SimpleAtoi(numbers[0], &begin) && absl::SimpleAtoi(numbers[1], &size);
}

absl::Status Damaged(const std::string& what) { return WithCause(absl::DataLossError(what), FailureCause::kStorage); }

// The files that this rank reads.
Manifest ShareOf(const Manifest& manifest, const ProcessGroup* ranks) {
  if (ranks == nullptr) return manifest;
  Manifest share;
  for (size_t i = ranks->rank(); i < manifest.files.size(); i += ranks->size())
    share.files.push_back(manifest.files[i]);
  return share;
}

}  // namespace

absl::Status WriteTrainCheckpoint(const CheckpointSource& source, const TrainSnapshot& snapshot,
                                  Publication& publication, ProcessGroup* ranks) {
  absl::Status status = WriteWeights(source, snapshot, PublishedFolder(publication, kWeights), ranks);
  if (!status.ok()) return status;
  FaultPoint("rank.checkpoint.weights_written");
  const auto state = CollectOptimizer(source, snapshot);
  status = state.ok() ? WriteOptimizer(*state, publication, ranks) : state.status();
  if (status.ok() && (ranks == nullptr || ranks->rank() == 0)) {
    status = publication.Write(kTrainer, TrainerJson(snapshot, source.peft).dump(2) + "\n");
  }
  return Agree(status, ranks);
}

absl::StatusOr<std::unique_ptr<TrainCheckpoint>> TrainCheckpoint::Open(std::string_view uri, ProcessGroup* ranks) {
  const auto store = ObjectStore::Open(uri);
  if (!store.ok()) return store.status();
  auto manifest = ReadManifest(**store, "");
  if (absl::IsNotFound(manifest.status())) {
    manifest = absl::NotFoundError(
        absl::StrCat(std::string(uri), " is not a committed checkpoint: it has no ", std::string(kManifestName)));
  }
  if (absl::Status found = Agree(manifest.status(), ranks); !found.ok()) return found;
  if (absl::Status whole = Agree(VerifyFiles(**store, "", ShareOf(*manifest, ranks)), ranks); !whole.ok()) return whole;
  auto checkpoint = OpenFiles(**store, *manifest);
  if (absl::Status opened = Agree(checkpoint.status(), ranks); !opened.ok()) return opened;
  return checkpoint;
}

absl::StatusOr<std::unique_ptr<TrainCheckpoint>> TrainCheckpoint::OpenFiles(const ObjectStore& store,
                                                                            const Manifest& manifest) {
  std::unique_ptr<TrainCheckpoint> checkpoint(new TrainCheckpoint);
  checkpoint->uri_ = store.uri();
  const auto trainer = store.Read(kTrainer);
  if (!trainer.ok()) {
    return Damaged(absl::StrCat(store.uri(), " is not a training checkpoint: ", trainer.status().message()));
  }
  if (absl::Status status = checkpoint->ReadTrainer(*trainer); !status.ok()) return status;
  for (const ManifestFile& file : manifest.files) {
    if (!file.path.starts_with(kOptimizer)) continue;
    if (absl::Status status = checkpoint->AddFile(store, file.path); !status.ok()) return status;
  }
  return checkpoint;
}

absl::Status TrainCheckpoint::AddFile(const ObjectStore& store, const std::string& path) {
  auto file = SafetensorsFile::Open(store, path);
  if (!file.ok()) return file.status();
  const SafetensorsHeader& header = (*file)->header();
  for (const SafetensorsEntry& entry : header.entries) {
    const size_t slash = entry.name.find('/');
    if (slash == entry.name.npos) continue;  // rng_state
    Run run = {.file = optimizer_.size(), .entry = &entry, .size = entry.size() / SafetensorsElementSize(entry.dtype)};
    const auto place = header.metadata.find(entry.name.substr(slash + 1));
    if (place != header.metadata.end() ? !ReadPlace(place->second, run.begin, run.size) : version_ > kWithoutPlaces) {
      return Damaged(absl::StrCat(store.UriOf(path), " does not say where the elements of ", entry.name, " belong"));
    }
    runs_[entry.name].push_back(run);
  }
  optimizer_.push_back(*std::move(file));
  return absl::OkStatus();
}

absl::Status TrainCheckpoint::ReadTrainer(std::string_view text) {
  const std::string file = UriBelow(uri_, kTrainer);
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Damaged(absl::StrCat(file, " is not a JSON object"));
  // Only type errors and missing keys can be thrown below.
  try {
    version_ = json.at("format_version").get<int>();
    if (version_ < kWithoutPlaces || version_ > kFormatVersion) {
      return Damaged(absl::StrCat(file, " has format version ", version_, ", this build reads versions ",
                                  kWithoutPlaces, " to ", kFormatVersion,
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
    if (json.contains("unheard")) {
      for (const nlohmann::json& report : json["unheard"]) unheard_.push_back(report.dump());
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
  auto model = ReopenRepository(base, peft_ ? base.repository->directory() : UriBelow(uri_, kWeights));
  if (absl::IsInvalidArgument(model.status())) {
    return other("is of another model than the job's: ", model.status().message(),
                 ". Give the model that it was trained from");
  }
  return model;
}

absl::StatusOr<at::Tensor> TrainCheckpoint::Read(std::string_view kind, const Parameter& whole, int64_t begin,
                                                 int64_t count) const {
  const auto found = runs_.find(absl::StrCat(std::string(kind), "/", whole.name));
  if (found == runs_.end()) return at::Tensor();
  at::Tensor values;
  int64_t missing = count;
  for (const Run& run : found->second) {
    if (run.size != whole.weight.numel()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the checkpoint ", uri_, " is of another model: ", whole.name, " has another shape"));
    }
    const int64_t stored = run.entry->size() / SafetensorsElementSize(run.entry->dtype);
    if (!values.defined()) values = at::empty({count}, *SafetensorsScalarType(run.entry->dtype));
    const int64_t from = std::max(begin, run.begin), to = std::min(begin + count, run.begin + stored);
    if (from >= to) continue;
    const auto read = optimizer_[run.file]->Elements(*run.entry, from - run.begin, to - from);
    if (!read.ok()) return read.status();
    values.narrow(0, from - begin, to - from).copy_(*read);
    optimizer_[run.file]->Release(*run.entry);
    missing -= to - from;
  }
  if (missing != 0) return Damaged(absl::StrCat(uri_, " lacks elements of ", found->first));
  return values;
}

absl::Status TrainCheckpoint::RestoreMaster(Parameter& parameter, const Parameter& whole, int64_t begin) const {
  const WeightView all = {parameter.name, &parameter, 0, parameter.weight.size(0)};
  const auto sizes = parameter.weight.sizes();
  const auto master = Read("master", whole, begin, parameter.weight.numel());
  if (!master.ok()) return master.status();
  const auto low = Read("low", whole, begin, parameter.weight.numel());
  if (!low.ok()) return low.status();
  if (master->defined()) {
    StoreMaster(all, master->view(sizes));
  } else if (low->defined()) {
    // weights/ holds the high half: bits(master) = (high << 16) + low.
    StoreMaster(all, (LoadMaster(all).cpu().view(at::kInt) + low->view(sizes).to(at::kInt)).view(at::kFloat));
  }
  return absl::OkStatus();
}

absl::Status TrainCheckpoint::Restore(std::span<const Moments> moments, std::span<ShardSlice* const> slices,
                                      int rank) const {
  const at::NoGradGuard no_grad;
  const PlaceOf place_of = FindPlaces(slices);
  const at::Device device = moments.empty() ? at::Device(at::kCPU) : moments.front().first.device();
  for (const Moments& state : moments) {
    Parameter& parameter = *state.parameter;
    const auto [whole, begin] = place_of(parameter);
    const auto first = Read("first_moment", *whole, begin, parameter.weight.numel());
    if (!first.ok()) return first.status();
    const auto second = Read("second_moment", *whole, begin, parameter.weight.numel());
    if (!second.ok()) return second.status();
    if (!first->defined() || !second->defined()) {
      return absl::InvalidArgumentError(absl::StrCat("the checkpoint ", uri_, " has no optimizer state of ",
                                                     parameter.name,
                                                     ": it is of another model, or trained other parameters"));
    }
    state.first.view(-1).copy_(*first);
    state.second.view(-1).copy_(*second);
    if (absl::Status status = RestoreMaster(parameter, *whole, begin); !status.ok()) return status;
  }
  if (static_cast<size_t>(rank) >= optimizer_.size()) return absl::OkStatus();
  const SafetensorsFile& mine = *optimizer_[rank];
  for (const SafetensorsEntry& entry : mine.header().entries) {
    if (entry.name != kRngState) continue;
    const auto rng = mine.Tensor(entry);
    if (!rng.ok()) return rng.status();
    at::Generator generator = at::globalContext().defaultGenerator(device);
    // Another kind of device draws from another kind of state: what it was seeded with has to do.
    if (generator.get_state().numel() == rng->numel()) generator.set_state(rng->clone());
  }
  return absl::OkStatus();
}

}  // namespace temper

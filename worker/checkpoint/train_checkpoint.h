// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/publication.h"
#include "worker/checkpoint/native_model.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/checkpoint/train_snapshot.h"
#include "worker/parallel/process_group.h"

namespace temper {

// A checkpoint is a publication (common/storage/job_layout.h says where):
//
//   weights/       an HF directory, or a PEFT adapter directory when adapters are trained
//   optimizer/     state-RRRRR-of-NNNNN.safetensors, one of each rank that wrote it: first_moment/NAME and
//                  second_moment/NAME (fp32) of what the rank had of each trainable parameter, and what weights/ has
//                  rounded away of its master (low/NAME: int16, see master_split.h; or master/NAME: fp32, the master
//                  itself); and rng_state
//   trainer.json   how far the training is, and what nobody may have heard yet of its last steps
//
// NAME is the parameter's (worker/model/parameter.h). Its tensors are vectors: elements from BEGIN on, of SIZE in all,
// as the file's metadata says under NAME ("BEGIN/SIZE"). So any number of ranks can go on from what any number wrote.
//
// That is format version 3. Version 2 is read, too: one file, optimizer/state.safetensors, with whole parameters.

// What a checkpoint is written from, besides the snapshot. With adapters: `peft` and where they are.
struct CheckpointSource {
  const NativeRepository* model = nullptr;
  int64_t max_shard_size = 5'000'000'000;
  std::optional<PeftConfig> peft;
  std::vector<AdapterSite> sites;
};

// Writes everything and leaves the commit to the caller. Errors as in ExportModel. `ranks` that share the model all
// call it, each with its own snapshot of the same step, and get the same status (null: this rank is alone).
absl::Status WriteTrainCheckpoint(const CheckpointSource& source, const TrainSnapshot& snapshot,
                                  Publication& publication, ProcessGroup* ranks = nullptr);

// A committed checkpoint, whole: every file was read and is what the manifest says.
class TrainCheckpoint {
 public:
  // NOT_FOUND: no such directory, or never committed. DATA_LOSS: damaged, or of a format that this build does not know
  // (the message says which).
  // `ranks` share the reading; all call it and get the same status (null: this rank is alone).
  static absl::StatusOr<std::unique_ptr<TrainCheckpoint>> Open(std::string_view uri, ProcessGroup* ranks = nullptr);

  const std::string& uri() const { return uri_; }
  const TrainPosition& position() const { return position_; }
  // TrainSnapshot::unheard.
  const std::vector<std::string>& unheard() const { return unheard_; }
  // Absent: all weights were trained.
  const std::optional<PeftConfig>& peft() const { return peft_; }

  // The model to go on with: that of weights/, or `base` when adapters were trained. INVALID_ARGUMENT: the checkpoint
  // is of another model, or of another method, than the job.
  absl::StatusOr<NativeRepository> OpenModel(const NativeRepository& base, const std::optional<PeftConfig>& peft) const;

  // Gives the parameters of a model that was loaded from OpenModel() their masters, and fills the moments in, and
  // torch's default generator, if this rank is one of those that wrote the checkpoint. INVALID_ARGUMENT: names or
  // shapes are another model's.
  absl::Status Restore(std::span<const Moments> moments) const { return Restore(moments, {}, 0); }
  // The same on one of several ranks: `moments` are those of its `slices`.
  absl::Status Restore(std::span<const Moments> moments, std::span<ShardSlice* const> slices, int rank) const;

 private:
  // A tensor in one of the files: elements of a parameter.
  struct Run {
    size_t file = 0;
    const SafetensorsEntry* entry = nullptr;
    int64_t begin = 0;
    int64_t size = 0;  // of the whole parameter
  };

  TrainCheckpoint() = default;
  static absl::StatusOr<std::unique_ptr<TrainCheckpoint>> OpenFiles(const ObjectStore& store, const Manifest& manifest);
  absl::Status ReadTrainer(std::string_view text);
  absl::Status AddFile(const ObjectStore& store, const std::string& path);
  absl::Status RestoreMaster(Parameter& parameter, const Parameter& whole, int64_t begin) const;
  // `count` elements of KIND/NAME from `begin` on; undefined when the checkpoint has none.
  absl::StatusOr<at::Tensor> Read(std::string_view kind, const Parameter& whole, int64_t begin, int64_t count) const;

  std::string uri_;
  int version_ = 0;  // of its format
  TrainPosition position_;
  std::vector<std::string> unheard_;
  std::optional<PeftConfig> peft_;
  std::vector<std::unique_ptr<SafetensorsFile>> optimizer_;    // rank by rank
  std::map<std::string, std::vector<Run>, std::less<>> runs_;  // by KIND/NAME
};

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
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

namespace temper {

// A checkpoint is a publication (common/storage/job_layout.h says where):
//
//   weights/       an HF directory, or a PEFT adapter directory when adapters are trained
//   optimizer/     state.safetensors: first_moment/NAME and second_moment/NAME (fp32) of every trainable parameter,
//   what
//                  weights/ has rounded away of its master (low/NAME: int16, see master_split.h; or master/NAME: fp32,
//                  the master itself), and rng_state
//   trainer.json   how far the training is
//
// NAME is the parameter's (worker/model/parameter.h).

// What a checkpoint is written from, besides the snapshot. With adapters: `peft` and where they are.
struct CheckpointSource {
  const NativeRepository* model = nullptr;
  int64_t max_shard_size = 5'000'000'000;
  std::optional<PeftConfig> peft;
  std::vector<AdapterSite> sites;
};

// Writes everything and leaves the commit to the caller. Errors as in ExportModel.
absl::Status WriteTrainCheckpoint(const CheckpointSource& source, const TrainSnapshot& snapshot,
                                  Publication& publication);

// A committed checkpoint, whole: every file was read and is what the manifest says.
class TrainCheckpoint {
 public:
  // NOT_FOUND: no such directory, or never committed. DATA_LOSS: damaged, or of a format that this build does not know
  // (the message says which).
  static absl::StatusOr<std::unique_ptr<TrainCheckpoint>> Open(std::string_view uri);

  const std::string& uri() const { return uri_; }
  const TrainPosition& position() const { return position_; }
  // Absent: all weights were trained.
  const std::optional<PeftConfig>& peft() const { return peft_; }

  // The model to go on with: that of weights/, or `base` when adapters were trained. INVALID_ARGUMENT: the checkpoint
  // is of another model, or of another method, than the job.
  absl::StatusOr<NativeRepository> OpenModel(const NativeRepository& base, const std::optional<PeftConfig>& peft) const;

  // Gives the parameters of a model that was loaded from OpenModel() their masters, and fills the moments in.
  // INVALID_ARGUMENT: names or shapes are another model's.
  absl::Status Restore(std::span<const Moments> moments) const;

 private:
  TrainCheckpoint() = default;
  absl::Status ReadTrainer(std::string_view text);
  absl::StatusOr<at::Tensor> Find(const std::string& name) const;  // undefined when there is none

  std::string uri_;
  TrainPosition position_;
  std::optional<PeftConfig> peft_;
  std::unique_ptr<SafetensorsFile> optimizer_;
};

}  // namespace temper

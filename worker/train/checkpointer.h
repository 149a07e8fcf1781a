// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/storage/job_layout.h"
#include "common/storage/object_store.h"
#include "worker/checkpoint/train_checkpoint.h"
#include "worker/train/adamw.h"
#include "worker/train/gang.h"
#include "worker/train/train_job.h"

namespace temper {

// Whether one is to be written after `step`, `since_last` after the one before.
bool CheckpointDue(const CheckpointOptions& options, int64_t step, std::chrono::duration<double> since_last);

// Writes a training's checkpoints in the background, from a snapshot, and removes those that newer ones replace. One at
// a time: one that falls due while another is written comes after it. A checkpoint that can't be written is a warning;
// the next one is tried as if nothing had happened. One thread at a time.
//
// The ranks of a gang each have one, and call the same after the same steps: they write a checkpoint together, when
// rank 0's clock says so and it has written the one before. Throws CollectiveError.
class Checkpointer {
 public:
  // All references must outlive it. `optimizer` is that of gang.ParametersOf(model); `writing` connects the gang's
  // ranks for the background (null for one that is alone). `start` is where the training began or was resumed, from the
  // checkpoint `start_uri` if there was one: nothing new is to be kept there.
  Checkpointer(ObjectStore& store, const TrainJob& job, const Gang& gang, ProcessGroup* writing,
               CheckpointSource source, const TrainableModel& model, AdamW& optimizer, int64_t start,
               std::string start_uri, TrainObserver& observer);
  // Waits for the one that is being written.
  ~Checkpointer();
  Checkpointer(const Checkpointer&) = delete;
  Checkpointer& operator=(const Checkpointer&) = delete;

  // After every step, and its validation. Takes the snapshot when a checkpoint is due: by the policy, or because the
  // step's validation is the best so far, which waits for the one before to be written.
  void AfterStep(const TrainPosition& position);

  // One of this position, whatever the policy says; returns when it is committed, or could not be.
  void SaveNow(const TrainPosition& position);

  // Waits for the one that is being written.
  void Finish();

  // The newest one that was committed; empty when there is none.
  const std::string& newest_uri() const { return newest_uri_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Written {
    absl::Status status;  // of the commit
    CheckpointReport report;
    std::vector<CheckpointKey> removed;
  };

  bool Wanted(const TrainPosition& position, Clock::time_point now);
  // Takes the snapshot, for which training stands still since then, and has it written.
  void Begin(const TrainPosition& position, Clock::time_point paused_since);
  // On the background thread.
  Written Write(TrainSnapshot snapshot, CheckpointReport report);
  std::vector<CheckpointKey> RemoveReplaced(int64_t best_step);
  // Reports what was written, if it was, or waits until it is.
  void Collect(bool wait);

  ObjectStore& store_;
  const TrainJob& job_;
  const Gang& gang_;
  ProcessGroup* const ranks_;  // of the background
  const CheckpointSource source_;
  const TrainableModel& model_;
  AdamW& optimizer_;
  TrainObserver& observer_;
  const int64_t start_;
  int64_t saved_step_;  // of the newest one that was begun and has not failed
  bool due_ = false;
  std::string newest_uri_;
  Clock::time_point last_ = Clock::now();
  std::future<Written> writing_;
};

}  // namespace temper

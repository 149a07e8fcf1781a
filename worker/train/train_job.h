// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/data/train_on.h"

namespace temper {

// What one rank is asked to do, in plain structs: the session fills them in from the job file, with every default
// resolved but those that depend on the model or the data (0 or empty, as each field says).

enum class OverlongPolicy { kTruncate, kDrop };
enum class LearningRateSchedule { kConstant, kLinear, kCosine };
enum class Precision { kAuto, kFp32, kBf16 };

struct DataOptions {
  std::string uri;
  int64_t max_sample_tokens = 0;  // 0: the smaller of the model's positions and micro_batch_tokens
  OverlongPolicy overlong = OverlongPolicy::kTruncate;
  TrainOn train_on = TrainOn::kDefault;
  std::map<std::string, std::string> columns;  // our names → the data's, for those that differ
};

struct LoraOptions {
  int64_t rank = 16;
  double alpha = 32.0;
  std::vector<std::string> targets;  // HF module names, or "all-linear"
};

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
};

struct TrainingOptions {
  int64_t steps = 0;    // exactly one of steps and
  double epochs = 0.0;  // epochs is set
  int64_t tokens_per_step = 4096;
  int64_t micro_batch_tokens = 2048;
  double learning_rate = 2e-5;
  LearningRateSchedule schedule = LearningRateSchedule::kCosine;
  std::optional<int64_t> warmup_steps;  // absent: 3 % of the steps
  double final_learning_rate_ratio = 0.0;
  AdamWOptions adamw;
  double max_grad_norm = 1.0;  // 0: no clipping
  int64_t seed = 0;
  Precision precision = Precision::kAuto;
};

struct OutputOptions {
  std::string uri;  // the job writes to URI/JOB/export-eNNNN
  int64_t max_shard_size = 5'000'000'000;
};

struct CheckpointOptions {
  int64_t every_steps = 0;   // 0: not by steps
  double every_minutes = 0;  // 0: not by time
  int32_t keep_last = 2;
};

struct TrainJob {
  std::string job_id;
  int32_t epoch = 1;  // of the gang
  std::string model_uri;
  DataOptions data;
  std::optional<LoraOptions> lora;
  TrainingOptions training;
  OutputOptions output;
  CheckpointOptions checkpoint_options;
  std::vector<std::string> checkpoints;  // the job's own, newest first: URIs to go on from
  std::string resume_from;               // another job's, where there is none of its own; empty: start with the model
  int threads = 0;                       // 0: all cores that the process may use
};

enum class TrainPhase { kPreparingData, kLoadingModel, kTraining, kExporting, kVerifying };
enum class LogSeverity { kInfo, kWarning, kError };

// Figures of one optimizer step; temper.v1.StepMetrics documents each.
struct StepMetrics {
  int64_t step = 0;
  int64_t total_steps = 0;
  double loss = 0;
  double grad_norm = 0;
  double learning_rate = 0;
  int64_t tokens = 0;
  int64_t scored_tokens = 0;
  int64_t total_tokens = 0;
  double padding_ratio = 0;
  double seconds = 0;
  double mfu = 0;
  double hfu = 0;
  int64_t peak_memory_bytes = 0;
  double epoch = 0;
};

// A committed checkpoint; temper.v1.CheckpointCommitted documents each field.
struct CheckpointReport {
  int64_t step = 0;
  std::string uri;
  int64_t bytes = 0;
  int32_t files = 0;
  double pause_seconds = 0;
  double commit_seconds = 0;
};

// Gets what the trainer has to say, on the trainer's thread. Calls must not block for long.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void OnPhase(TrainPhase phase, int64_t total_steps) = 0;
  virtual void OnStep(const StepMetrics& metrics) = 0;
  virtual void OnLog(LogSeverity severity, const std::string& text) = 0;
  virtual void OnExport(const std::string& uri, int64_t bytes, int32_t files) = 0;
  virtual void OnCheckpoint(const CheckpointReport& report) = 0;
  virtual void OnCheckpointRemoved(int64_t step, int32_t epoch) = 0;
  // Training goes on after `step`, from the checkpoint at `uri`; 0 and "": from the start, though it was begun before.
  virtual void OnResume(int64_t step, const std::string& uri) = 0;
};

}  // namespace temper

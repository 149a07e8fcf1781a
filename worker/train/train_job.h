// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/data/data_source.h"
#include "worker/data/sample_reader.h"
#include "worker/data/train_on.h"
#include "worker/families/adapter_format.h"
#include "worker/parallel/rendezvous.h"
#include "worker/train/distillation_options.h"
#include "worker/train/preference_options.h"
#include "worker/train/reward_options.h"

namespace temper {

// What one rank is asked to do, in plain structs: the session fills them in from the job file, with every default
// resolved but those that depend on the model or the data (0 or empty, as each field says).

enum class OverlongPolicy { kTruncate, kDrop };
enum class LearningRateSchedule { kConstant, kLinear, kCosine, kWarmupStableDecay };
enum class OnSpike { kWarn, kSkip, kRollBack, kStop };
// Who trains the model: temper's own engine, or transformers in the rank's process.
enum class Backend { kAuto, kNative, kHf };
// What a rank computes on.
enum class DeviceKind { kCpu, kCuda };
enum class Precision { kAuto, kFp32, kBf16 };

// What backward computes again instead of keeping it. kAuto: as little as memory allows.
enum class RecomputePolicy { kAuto, kNone, kAttention, kBlock };

struct DataOptions {
  std::vector<DataSource> sources;
  int64_t max_sample_tokens = 0;  // 0: the smaller of the model's positions and micro_batch_tokens, of pairs its half
  OverlongPolicy overlong = OverlongPolicy::kTruncate;
  TrainOn train_on = TrainOn::kDefault;
};

struct EarlyStopOptions {
  int32_t patience = 3;
  double min_improvement = 0;
};

// Exactly one of `sources` and `share` is given.
struct ValidationOptions {
  std::vector<DataSource> sources;
  double share = 0;
  int64_t max_samples = 1000;
  int64_t every_steps = 0;  // 0: ten in a run
  std::optional<EarlyStopOptions> early_stop;
};

struct NumericsOptions {
  int32_t max_skipped_steps = 5;
  OnSpike on_spike = OnSpike::kWarn;
  double spike_deviations = 6;
};

// What an adapter that training begins with says itself does not count here: all but `dropout`.
struct LoraOptions {
  int64_t rank = 16;
  double alpha = 32.0;
  std::vector<std::string> targets;  // HF module names, patterns for them, or "all-linear"
  bool rslora = false;
  bool dora = false;
  double dropout = 0;
  std::string adapter;                       // URI of a PEFT directory to begin with; empty: new adapters
  std::vector<std::string> modules_to_save;  // HF modules, or patterns for them, that are trained as a whole
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
  double max_minutes = 0;  // 0: no limit
  LearningRateSchedule schedule = LearningRateSchedule::kCosine;
  double decay_ratio = 0.2;
  std::optional<int64_t> warmup_steps;  // absent: 3 % of the steps
  double final_learning_rate_ratio = 0.0;
  AdamWOptions adamw;
  double max_grad_norm = 1.0;  // 0: no clipping
  int64_t seed = 0;
  Precision precision = Precision::kAuto;
  RecomputePolicy recompute = RecomputePolicy::kAuto;
  std::vector<std::string> freeze;  // patterns for HF names
  double label_smoothing = 0;
  double z_loss = 0;
  NumericsOptions numerics;
  // See ShardingOptions.
  bool keep_weights = false;
  bool reduce_once = false;
};

enum class AdapterExport { kAdapter, kMerged, kBoth };

struct OutputOptions {
  std::string uri;  // the job writes to URI/JOB/export-eNNNN
  int64_t max_shard_size = 5'000'000'000;
  AdapterExport adapters = AdapterExport::kAdapter;     // with `lora`
  AdapterFormat adapter_format = AdapterFormat::kPeft;  // with `lora`
};

struct CheckpointOptions {
  int64_t every_steps = 0;   // 0: not by steps
  double every_minutes = 0;  // 0: not by time
  int32_t keep_last = 2;
};

// Steps to record.
struct ProfileOptions {
  int64_t first_step = 3;
  int32_t steps = 1;
};

struct TrainJob {
  std::string job_id;
  int32_t epoch = 1;           // of the gang
  int32_t ranks = 1;           // that the gang is to have
  int32_t ranks_per_node = 1;  // … and each of its nodes
  // Which of several ranks this is, and where the others are; absent: it is alone.
  std::optional<Rendezvous> rendezvous;
  std::string model_uri;
  Backend backend = Backend::kAuto;
  bool trust_remote_code = false;  // code that lies beside the model may be run
  DataOptions data;
  std::optional<ValidationOptions> validation;
  // At most one; none: supervised fine-tuning.
  std::optional<PreferenceOptions> preference;
  std::optional<DistillationOptions> distillation;
  std::optional<RewardOptions> reward;
  std::optional<LoraOptions> lora;
  TrainingOptions training;
  OutputOptions output;
  CheckpointOptions checkpoint_options;
  std::optional<ProfileOptions> profile;
  std::vector<std::string> checkpoints;  // the job's own, newest first: URIs to go on from
  std::string resume_from;               // another job's, where there is none of its own; empty: start with the model
  int64_t created = 0;                   // seconds since 1970, what is "now" in chat templates; 0: what the clock says
  int threads = 0;                       // 0: all cores that the process may use
  DeviceKind device = DeviceKind::kCpu;

  // Whether it learns from pairs of answers.
  bool pairs() const { return preference || reward; }
};

enum class TrainPhase { kPreparingData, kLoadingModel, kTraining, kExporting, kVerifying };
enum class LogSeverity { kInfo, kWarning, kError };

// Where a step's time went, in seconds; temper.v1.StepPhases documents each.
struct StepPhases {
  double data = 0;
  double forward = 0;
  double backward = 0;
  double optimizer = 0;
  double communication = 0;
  double checkpoint = 0;
  double other = 0;

  double sum() const { return data + forward + backward + optimizer + communication + checkpoint + other; }
};

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
  std::optional<double> mfu;  // absent: the model's FLOPs are not known
  std::optional<double> hfu;
  int64_t peak_memory_bytes = 0;
  double epoch = 0;
  StepPhases phases;
  bool skipped = false;
  std::vector<double> rank_compute_seconds;
  int64_t sent_bytes = 0;                   // to other ranks
  std::map<std::string, double> objective;  // Objective::Figures
};

// What was found in the data; temper.v1.DataStatistics documents each field.
struct DataReport {
  SampleStatistics samples;
  int64_t rows_per_epoch = 0;
  double padding_ratio = 0;
  double data_share = 1;
  int64_t validation_samples = 0;
};

// The mean loss over held-out samples; temper.v1.ValidationResult documents each field.
struct ValidationReport {
  int64_t step = 0;
  double loss = 0;
  int64_t scored_tokens = 0;
  double seconds = 0;
  bool best = false;
  std::map<std::string, double> objective;
};

// A committed checkpoint; temper.v1.CheckpointCommitted documents each field.
struct CheckpointReport {
  int64_t step = 0;
  std::string uri;
  int64_t bytes = 0;
  int32_t files = 0;
  double pause_seconds = 0;
  double commit_seconds = 0;
  bool best = false;
};

// Text of tokens in a row, and whether the loss looks at them.
struct PreflightPiece {
  std::string text;
  bool scored = false;
};

struct PreflightSample {
  std::vector<PreflightPiece> pieces;
  int64_t tokens = 0;
  int64_t scored_tokens = 0;
  std::string part;  // of a pair: which answer
};

struct PreflightCheck {
  LogSeverity severity = LogSeverity::kInfo;
  std::string text;
};

// Memory that training takes, in bytes; temper.v1.MemoryEstimate documents each field.
struct MemoryEstimate {
  int64_t weights = 0;
  int64_t gradients = 0;
  int64_t optimizer = 0;
  int64_t activations = 0;
  int64_t data = 0;
  int64_t process = 0;
  int64_t snapshot = 0;
  int64_t available = 0;

  int64_t total() const { return weights + gradients + optimizer + activations + data + process + snapshot; }
};

// What a preflight has found; temper.v1.PreflightReport documents each field.
struct PreflightReport {
  std::vector<PreflightSample> samples;
  DataReport data;
  int64_t total_steps = 0;
  double estimated_seconds = 0;
  MemoryEstimate memory;
  std::string backend;
  std::string backend_reason;
  std::vector<PreflightCheck> checks;
};

// A committed export; temper.v1.ExportCommitted documents each field.
struct ExportSummary {
  std::string uri;
  int64_t bytes = 0;
  int32_t files = 0;
  std::string proof;  // verification.json
};

// Gets what the trainer has to say, on the trainer's thread. Calls must not block for long.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void OnPhase(TrainPhase phase, int64_t total_steps) = 0;
  virtual void OnData(const DataReport& report) = 0;
  // Who trains the model: "native" or "hf".
  virtual void OnBackend(const std::string& backend, const std::string& reason) = 0;
  virtual void OnPreflight(const PreflightReport& report) = 0;
  // A step begins; OnStep tells of it, or there was none left to take.
  virtual void OnStepBegun() = 0;
  virtual void OnStep(const StepMetrics& metrics) = 0;
  virtual void OnValidation(const ValidationReport& report) = 0;
  virtual void OnLog(LogSeverity severity, const std::string& text) = 0;
  virtual void OnExport(const ExportSummary& exported) = 0;
  virtual void OnCheckpoint(const CheckpointReport& report) = 0;
  virtual void OnCheckpointRemoved(int64_t step, int32_t epoch) = 0;
  // Training goes on after `step`, from the checkpoint at `uri`; 0 and "": from the start, though it was begun before.
  // `unheard`: what an observer of the same job has had kept in the checkpoint.
  virtual void OnResume(int64_t step, const std::string& uri, const std::vector<std::string>& unheard) = 0;

  // What was told of steps, and may be lost if this process and its host end now: for a checkpoint to keep, so that
  // whoever goes on from there can tell it. JSON objects.
  virtual std::vector<std::string> Unheard() { return {}; }
};

}  // namespace temper

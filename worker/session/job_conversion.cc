// SPDX-License-Identifier: Apache-2.0
#include "worker/session/job_conversion.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace temper {
namespace {

constexpr int64_t kDefaultTokensPerStep = 4096;
constexpr int64_t kDefaultMicroBatchTokens = 2048;
constexpr double kDefaultLearningRate = 2e-5;
constexpr double kDefaultLoraLearningRate = 2e-4;
constexpr double kDefaultPreferenceLearningRate = 1e-6;
constexpr double kDefaultPreferenceLoraLearningRate = 1e-5;
constexpr double kDefaultRewardLearningRate = 1e-5;
constexpr double kDefaultRewardLoraLearningRate = 1e-4;
constexpr int64_t kDefaultLoraRank = 16;
constexpr double kDefaultBeta = 0.1;
constexpr double kDefaultSimPoBeta = 2;
constexpr double kDefaultTeacherWeight = 0.5;
constexpr double kDefaultCheckpointMinutes = 15;
constexpr int32_t kDefaultKeptCheckpoints = 2;
constexpr int64_t kDefaultValidationSamples = 1000;
constexpr int32_t kDefaultPatience = 3;
constexpr int64_t kDefaultMaxShardSize = 5'000'000'000;

// proto3: a number without `optional` that is 0 was not given.
template <typename T>
T OrDefault(T value, T default_value) {
  return value == T{} ? default_value : value;
}

absl::Status Missing(absl::string_view field, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("job field `", field, "` is missing: set it to ", what));
}

absl::StatusOr<OverlongPolicy> Overlong(v1::DataSource::Overlong overlong) {
  switch (overlong) {
    case v1::DataSource::OVERLONG_UNSPECIFIED:
    case v1::DataSource::OVERLONG_TRUNCATE:
      return OverlongPolicy::kTruncate;
    case v1::DataSource::OVERLONG_DROP:
      return OverlongPolicy::kDrop;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("job field `data.overlong` has the value ", overlong, ", which this version does not know"));
  }
}

absl::StatusOr<TrainOn> TrainOnFromSpec(v1::DataSource::TrainOn train_on) {
  switch (train_on) {
    case v1::DataSource::TRAIN_ON_UNSPECIFIED:
      return TrainOn::kDefault;
    case v1::DataSource::TRAIN_ON_ASSISTANT:
      return TrainOn::kAssistant;
    case v1::DataSource::TRAIN_ON_COMPLETION:
      return TrainOn::kCompletion;
    case v1::DataSource::TRAIN_ON_ALL:
      return TrainOn::kAll;
    case v1::DataSource::TRAIN_ON_LAST_TURN:
      return TrainOn::kLastTurn;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("job field `data.train_on` has the value ", train_on, ", which this version does not know"));
  }
}

template <typename ProtoMap>
ColumnNames Columns(const ProtoMap& map) {
  return {map.begin(), map.end()};
}

absl::StatusOr<DataOptions> DataFromSpec(const v1::DataSource& spec) {
  DataOptions data;
  const ColumnNames columns = Columns(spec.columns());
  if (!spec.uri().empty()) data.sources.push_back({.uri = spec.uri(), .columns = columns});
  for (const v1::DataSource::Source& source : spec.sources()) {
    data.sources.push_back({.uri = source.uri(),
                            .columns = source.columns().empty() ? columns : Columns(source.columns()),
                            .weight = source.has_weight() ? source.weight() : 1.0});
  }
  data.max_sample_tokens = spec.max_sample_tokens();
  const auto overlong = Overlong(spec.overlong());
  if (!overlong.ok()) return overlong.status();
  data.overlong = *overlong;
  const auto train_on = TrainOnFromSpec(spec.train_on());
  if (!train_on.ok()) return train_on.status();
  data.train_on = *train_on;
  return data;
}

ValidationOptions ValidationFromSpec(const v1::Validation& spec, const v1::DataSource& data) {
  ValidationOptions validation;
  if (!spec.uri().empty()) validation.sources.push_back({.uri = spec.uri(), .columns = Columns(data.columns())});
  validation.share = spec.share();
  validation.max_samples = OrDefault(spec.max_samples(), kDefaultValidationSamples);
  validation.every_steps = spec.every_steps();
  if (spec.has_early_stop()) {
    validation.early_stop = {.patience = OrDefault(spec.early_stop().patience(), kDefaultPatience),
                             .min_improvement = spec.early_stop().min_improvement()};
  }
  return validation;
}

absl::StatusOr<LearningRateSchedule> Schedule(v1::Training::Schedule schedule) {
  switch (schedule) {
    case v1::Training::SCHEDULE_CONSTANT:
      return LearningRateSchedule::kConstant;
    case v1::Training::SCHEDULE_LINEAR:
      return LearningRateSchedule::kLinear;
    case v1::Training::SCHEDULE_WSD:
      return LearningRateSchedule::kWarmupStableDecay;
    case v1::Training::SCHEDULE_UNSPECIFIED:
    case v1::Training::SCHEDULE_COSINE:
      return LearningRateSchedule::kCosine;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("job field `training.schedule` has the value ", schedule, ", which this version does not know"));
  }
}

absl::StatusOr<Precision> ComputePrecision(v1::Training::Precision precision) {
  switch (precision) {
    case v1::Training::PRECISION_UNSPECIFIED:
    case v1::Training::PRECISION_AUTO:
      return Precision::kAuto;
    case v1::Training::PRECISION_FP32:
      return Precision::kFp32;
    case v1::Training::PRECISION_BF16:
      return Precision::kBf16;
    default:
      return absl::InvalidArgumentError(absl::StrCat("job field `training.precision` has the value ", precision,
                                                     ", which this version does not know"));
  }
}

absl::StatusOr<RecomputePolicy> RecomputeFromSpec(v1::Training::Recompute recompute) {
  switch (recompute) {
    case v1::Training::RECOMPUTE_UNSPECIFIED:
    case v1::Training::RECOMPUTE_AUTO:
      return RecomputePolicy::kAuto;
    case v1::Training::RECOMPUTE_NONE:
      return RecomputePolicy::kNone;
    case v1::Training::RECOMPUTE_ATTENTION:
      return RecomputePolicy::kAttention;
    case v1::Training::RECOMPUTE_BLOCK:
      return RecomputePolicy::kBlock;
    default:
      return absl::InvalidArgumentError(absl::StrCat("job field `training.recompute` has the value ", recompute,
                                                     ", which this version does not know"));
  }
}

absl::StatusOr<Backend> BackendFromSpec(v1::JobSpec::Backend backend) {
  switch (backend) {
    case v1::JobSpec::BACKEND_UNSPECIFIED:
    case v1::JobSpec::BACKEND_AUTO:
      return Backend::kAuto;
    case v1::JobSpec::BACKEND_NATIVE:
      return Backend::kNative;
    case v1::JobSpec::BACKEND_HF:
      return Backend::kHf;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("job field `backend` has the value ", backend, ", which this version does not know"));
  }
}

absl::StatusOr<PreferenceLoss> LossFromSpec(v1::PreferenceOptimization::Loss loss) {
  switch (loss) {
    case v1::PreferenceOptimization::LOSS_UNSPECIFIED:
    case v1::PreferenceOptimization::LOSS_SIGMOID:
      return PreferenceLoss::kSigmoid;
    case v1::PreferenceOptimization::LOSS_IPO:
      return PreferenceLoss::kIpo;
    case v1::PreferenceOptimization::LOSS_HINGE:
      return PreferenceLoss::kHinge;
    case v1::PreferenceOptimization::LOSS_SIMPO:
      return PreferenceLoss::kSimPo;
    case v1::PreferenceOptimization::LOSS_ORPO:
      return PreferenceLoss::kOrpo;
    default:
      return absl::InvalidArgumentError(absl::StrCat("job field `method.preference.loss` has the value ", loss,
                                                     ", which this version does not know"));
  }
}

absl::StatusOr<PreferenceOptions> PreferenceFromSpec(const v1::PreferenceOptimization& spec) {
  const auto loss = LossFromSpec(spec.loss());
  if (!loss.ok()) return loss.status();
  const bool simpo = *loss == PreferenceLoss::kSimPo;
  PreferenceOptions preference = {.loss = *loss,
                                  .beta = OrDefault(spec.beta(), simpo ? kDefaultSimPoBeta : kDefaultBeta),
                                  .label_smoothing = spec.label_smoothing(),
                                  .length_normalized = spec.length_normalized()};
  if (simpo) preference.margin = spec.has_margin() ? spec.margin() : preference.beta / 2;
  return preference;
}

absl::StatusOr<ops::DivergenceKind> DivergenceFromSpec(v1::Distillation::Divergence divergence) {
  switch (divergence) {
    case v1::Distillation::DIVERGENCE_UNSPECIFIED:
    case v1::Distillation::DIVERGENCE_FORWARD_KL:
      return ops::DivergenceKind::kForwardKl;
    case v1::Distillation::DIVERGENCE_REVERSE_KL:
      return ops::DivergenceKind::kReverseKl;
    case v1::Distillation::DIVERGENCE_JSD:
      return ops::DivergenceKind::kJsd;
    default:
      return absl::InvalidArgumentError(absl::StrCat("job field `method.distillation.divergence` has the value ",
                                                     divergence, ", which this version does not know"));
  }
}

absl::StatusOr<DistillationOptions> DistillationFromSpec(const v1::Distillation& spec) {
  const auto kind = DivergenceFromSpec(spec.divergence());
  if (!kind.ok()) return kind.status();
  return DistillationOptions{.teacher = spec.teacher(),
                             .divergence = {.kind = *kind,
                                            .temperature = OrDefault(spec.temperature(), 1.0),
                                            .teacher_weight = OrDefault(spec.teacher_weight(), kDefaultTeacherWeight)},
                             .sft_weight = spec.sft_weight()};
}

LoraOptions LoraFromSpec(const v1::Lora& spec) {
  LoraOptions lora;
  lora.dropout = spec.dropout();
  lora.adapter = spec.adapter();
  if (!lora.adapter.empty()) return lora;  // the adapter says the rest
  lora.rslora = spec.rslora();
  lora.dora = spec.dora();
  lora.modules_to_save.assign(spec.modules_to_save().begin(), spec.modules_to_save().end());
  lora.rank = OrDefault<int64_t>(spec.rank(), kDefaultLoraRank);
  lora.alpha = OrDefault(spec.alpha(), 2.0 * static_cast<double>(lora.rank));
  lora.targets.assign(spec.targets().begin(), spec.targets().end());
  if (lora.targets.empty()) lora.targets = {"all-linear"};
  return lora;
}

AdamWOptions AdamWFromSpec(const v1::AdamW& spec) {
  AdamWOptions adamw;
  if (spec.has_beta1()) adamw.beta1 = spec.beta1();
  if (spec.has_beta2()) adamw.beta2 = spec.beta2();
  if (spec.has_epsilon()) adamw.epsilon = spec.epsilon();
  adamw.weight_decay = spec.weight_decay();
  return adamw;
}

absl::StatusOr<NumericsOptions> NumericsFromSpec(const v1::Numerics& spec) {
  NumericsOptions numerics;
  numerics.max_skipped_steps = OrDefault(spec.max_skipped_steps(), numerics.max_skipped_steps);
  numerics.spike_deviations = OrDefault(spec.spike_deviations(), numerics.spike_deviations);
  switch (spec.on_spike()) {
    case v1::Numerics::ON_SPIKE_UNSPECIFIED:
    case v1::Numerics::ON_SPIKE_WARN:
      return numerics;
    case v1::Numerics::ON_SPIKE_SKIP:
      numerics.on_spike = OnSpike::kSkip;
      return numerics;
    case v1::Numerics::ON_SPIKE_ROLL_BACK:
      numerics.on_spike = OnSpike::kRollBack;
      return numerics;
    case v1::Numerics::ON_SPIKE_STOP:
      numerics.on_spike = OnSpike::kStop;
      return numerics;
    default:
      return absl::InvalidArgumentError(absl::StrCat("job field `training.numerics.on_spike` has the value ",
                                                     spec.on_spike(), ", which this version does not know"));
  }
}

absl::StatusOr<TrainingOptions> TrainingFromSpec(const v1::Training& spec, double default_learning_rate) {
  TrainingOptions training;
  training.steps = spec.steps();
  training.epochs = spec.epochs();
  if (training.steps <= 0 && training.epochs <= 0 && spec.tokens() <= 0) {
    return Missing("training.steps", "the number of optimizer steps, or give `training.epochs` or `training.tokens`");
  }
  training.tokens_per_step = OrDefault(spec.tokens_per_step(), kDefaultTokensPerStep);
  training.micro_batch_tokens =
      OrDefault(spec.micro_batch_tokens(), std::min(kDefaultMicroBatchTokens, training.tokens_per_step));
  if (spec.tokens() > 0) {
    const int64_t micro_batches =
        (training.tokens_per_step + training.micro_batch_tokens - 1) / training.micro_batch_tokens;
    const int64_t tokens_per_step = micro_batches * training.micro_batch_tokens;
    training.steps = (spec.tokens() + tokens_per_step - 1) / tokens_per_step;
  }
  training.max_minutes = spec.max_minutes();
  training.learning_rate = OrDefault(spec.learning_rate(), default_learning_rate);
  auto schedule = Schedule(spec.schedule());
  if (!schedule.ok()) return schedule.status();
  training.schedule = *schedule;
  if (spec.has_warmup_steps()) training.warmup_steps = spec.warmup_steps();
  training.final_learning_rate_ratio = spec.final_learning_rate_ratio();
  training.adamw = AdamWFromSpec(spec.adamw());
  if (spec.has_max_grad_norm()) training.max_grad_norm = spec.max_grad_norm();
  training.seed = spec.seed();
  auto precision = ComputePrecision(spec.precision());
  if (!precision.ok()) return precision.status();
  training.precision = *precision;
  auto recompute = RecomputeFromSpec(spec.recompute());
  if (!recompute.ok()) return recompute.status();
  training.recompute = *recompute;
  training.decay_ratio = OrDefault(spec.decay_ratio(), training.decay_ratio);
  training.freeze.assign(spec.freeze().begin(), spec.freeze().end());
  training.label_smoothing = spec.label_smoothing();
  training.z_loss = spec.z_loss();
  const auto numerics = NumericsFromSpec(spec.numerics());
  if (!numerics.ok()) return numerics.status();
  training.numerics = *numerics;
  training.keep_weights = spec.sharding().keep_weights();
  training.reduce_once = spec.sharding().reduce_once();
  return training;
}

double DefaultLearningRate(const v1::JobSpec& spec) {
  if (spec.method().has_preference()) {
    return spec.has_lora() ? kDefaultPreferenceLoraLearningRate : kDefaultPreferenceLearningRate;
  }
  if (spec.method().has_reward()) {
    return spec.has_lora() ? kDefaultRewardLoraLearningRate : kDefaultRewardLearningRate;
  }
  return spec.has_lora() ? kDefaultLoraLearningRate : kDefaultLearningRate;
}

absl::StatusOr<AdapterExport> Adapters(v1::Output::Adapters adapters) {
  switch (adapters) {
    case v1::Output::ADAPTERS_UNSPECIFIED:
    case v1::Output::ADAPTERS_ADAPTER:
      return AdapterExport::kAdapter;
    case v1::Output::ADAPTERS_MERGED:
      return AdapterExport::kMerged;
    case v1::Output::ADAPTERS_BOTH:
      return AdapterExport::kBoth;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("job field `output.adapters` has the value ", adapters, ", which this version does not know"));
  }
}

absl::StatusOr<AdapterFormat> FormatOfAdapters(v1::Output::AdapterFormat format) {
  switch (format) {
    case v1::Output::ADAPTER_FORMAT_UNSPECIFIED:
    case v1::Output::ADAPTER_FORMAT_PEFT:
      return AdapterFormat::kPeft;
    case v1::Output::ADAPTER_FORMAT_VLLM:
      return AdapterFormat::kVllm;
    default:
      return absl::InvalidArgumentError(absl::StrCat("job field `output.adapter_format` has the value ", format,
                                                     ", which this version does not know"));
  }
}

absl::StatusOr<OutputOptions> OutputFromSpec(const v1::Output& spec) {
  OutputOptions output = {.uri = spec.uri(), .max_shard_size = OrDefault(spec.max_shard_size(), kDefaultMaxShardSize)};
  const auto adapters = Adapters(spec.adapters());
  if (!adapters.ok()) return adapters.status();
  output.adapters = *adapters;
  const auto format = FormatOfAdapters(spec.adapter_format());
  if (!format.ok()) return format.status();
  output.adapter_format = *format;
  return output;
}

absl::StatusOr<DeviceKind> DeviceFromSpec(v1::Resources::Device device) {
  switch (device) {
    case v1::Resources::DEVICE_UNSPECIFIED:
    case v1::Resources::DEVICE_CPU:
      return DeviceKind::kCpu;
    case v1::Resources::DEVICE_CUDA:
      return DeviceKind::kCuda;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("job field `resources.device` has the value ", device, ", which this version does not know"));
  }
}

CheckpointOptions CheckpointsFromSpec(const v1::CheckpointPolicy& spec) {
  const double default_minutes = spec.every_steps() > 0 ? 0 : kDefaultCheckpointMinutes;
  return {.every_steps = spec.every_steps(),
          .every_minutes = spec.has_every_minutes() ? spec.every_minutes() : default_minutes,
          .keep_last = OrDefault(spec.keep_last(), kDefaultKeptCheckpoints)};
}

}  // namespace

absl::StatusOr<TrainJob> TrainJobFromSpec(const v1::JobSpec& spec, const std::string& job_name, int32_t epoch) {
  if (spec.model().uri().empty()) return Missing("model.uri", "the directory of a Hugging Face model");
  if (spec.data().uri().empty() && spec.data().sources().empty()) return Missing("data.uri", "a file of samples");
  if (spec.output().uri().empty()) return Missing("output.uri", "a directory for the results");

  TrainJob job;
  job.job_id = std::string(absl::StripPrefix(job_name, "jobs/"));
  job.epoch = epoch;
  job.model_uri = spec.model().uri();
  const auto backend = BackendFromSpec(spec.backend());
  if (!backend.ok()) return backend.status();
  job.backend = *backend;
  auto data = DataFromSpec(spec.data());
  if (!data.ok()) return data.status();
  job.data = *std::move(data);
  if (spec.has_validation()) job.validation = ValidationFromSpec(spec.validation(), spec.data());
  if (spec.method().has_preference()) {
    const auto preference = PreferenceFromSpec(spec.method().preference());
    if (!preference.ok()) return preference.status();
    job.preference = *preference;
  }
  if (spec.method().has_distillation()) {
    auto distillation = DistillationFromSpec(spec.method().distillation());
    if (!distillation.ok()) return distillation.status();
    job.distillation = *std::move(distillation);
  }
  if (spec.method().has_reward()) {
    job.reward = RewardOptions{.centering = spec.method().reward().centering()};
    if (spec.data().overlong() == v1::DataSource::OVERLONG_UNSPECIFIED) job.data.overlong = OverlongPolicy::kDrop;
  }
  if (spec.has_lora()) job.lora = LoraFromSpec(spec.lora());
  auto training = TrainingFromSpec(spec.training(), DefaultLearningRate(spec));
  if (!training.ok()) return training.status();
  job.training = *training;
  auto output = OutputFromSpec(spec.output());
  if (!output.ok()) return output.status();
  job.output = *std::move(output);
  job.checkpoint_options = CheckpointsFromSpec(spec.checkpoints());
  if (spec.has_profile()) {
    job.profile = {.first_step = OrDefault(spec.profile().first_step(), ProfileOptions().first_step),
                   .steps = OrDefault(spec.profile().steps(), ProfileOptions().steps)};
  }
  job.resume_from = spec.resume_from();
  job.ranks_per_node = std::max(1, spec.resources().ranks_per_node());
  job.ranks = std::max(1, spec.resources().nodes()) * job.ranks_per_node;
  job.threads = spec.resources().threads_per_rank();
  const auto device = DeviceFromSpec(spec.resources().device());
  if (!device.ok()) return device.status();
  job.device = *device;
  return job;
}

}  // namespace temper

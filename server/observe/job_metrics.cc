// SPDX-License-Identifier: Apache-2.0
#include "server/observe/job_metrics.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/jobs/job_machine.h"
#include "server/jobs/job_time.h"

namespace temper {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

constexpr size_t kMaxLabelLength = 200;

Family<Gauge>& GaugeFamily(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
Family<Counter>& CounterFamily(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
Family<Histogram>& HistogramFamily(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

const Histogram::BucketBoundaries kStepBuckets = {0.01, 0.03, 0.1, 0.3, 1, 2, 5, 10, 20, 60, 120, 300};
const Histogram::BucketBoundaries kCheckpointBuckets = {0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000};
const Histogram::BucketBoundaries kQueueBuckets = {0.1, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400};

std::string IdOf(const v1::Job& job) { return job.name().substr(job.name().find('/') + 1); }

double Seconds(const google::protobuf::Timestamp& time) {
  return static_cast<double>(time.seconds()) + 1e-9 * time.nanos();
}

// A label's value of bounded length, cut between characters.
std::string Label(std::string value) {
  if (value.size() <= kMaxLabelLength) return value;
  size_t end = kMaxLabelLength;
  while (end > 0 && (static_cast<unsigned char>(value[end]) & 0xC0) == 0x80) --end;
  value.resize(end);
  return value;
}

// The series of `key`, made when missing.
template <typename Key, typename Metric>
Series<Metric>& SeriesOf(std::map<Key, Series<Metric>>& series, Family<Metric>& family,
                         const prometheus::Labels& labels, const Key& key) {
  auto found = series.find(key);
  if (found == series.end()) found = series.emplace(key, Series<Metric>(family, labels)).first;
  return found->second;
}

// Of a job, what tells where its time goes.
v1::Job TimeOf(const v1::Job& job) {
  v1::Job part;
  part.set_state(job.state());
  part.set_phase(job.phase());
  if (job.has_time_spent()) *part.mutable_time_spent() = job.time_spent();
  return part;
}

std::string MethodName(const v1::JobSpec& spec) {
  const auto method = [&]() -> const char* {
    switch (spec.method().method_case()) {
      case v1::Method::kPreference:
        return "preference";
      case v1::Method::kDistillation:
        return "distillation";
      case v1::Method::kReward:
        return "reward";
      case v1::Method::kSft:
      case v1::Method::METHOD_NOT_SET:
        break;
    }
    return "sft";
  };
  return absl::StrCat(method(), spec.has_lora() ? "-lora" : "");
}

}  // namespace

struct JobMetrics::Families {
  explicit Families(prometheus::Registry& registry)
      : info(GaugeFamily(registry, "temper_job_info", "What a job is; always 1")),
        state(GaugeFamily(registry, "temper_job_state", "1 for the state that a job is in, 0 for the others")),
        step(GaugeFamily(registry, "temper_train_step", "Newest optimizer step of a job")),
        loss(GaugeFamily(registry, "temper_train_loss",
                         "Loss of the newest step, a mean over its scored tokens or its pairs")),
        grad_norm(
            GaugeFamily(registry, "temper_train_grad_norm", "Global gradient norm of the newest step before clipping")),
        learning_rate(GaugeFamily(registry, "temper_train_learning_rate", "Learning rate of the newest step")),
        padding(GaugeFamily(registry, "temper_train_padding_ratio",
                            "Padding as a share of all positions of the newest step")),
        mfu(GaugeFamily(registry, "temper_train_mfu_ratio", "Model FLOPs utilization of the newest step")),
        hfu(GaugeFamily(registry, "temper_train_hfu_ratio", "Hardware FLOPs utilization of the newest step")),
        objective(GaugeFamily(registry, "temper_train_objective",
                              "What the job's method measures beside the loss in the newest step, by its name")),
        rank_compute(
            GaugeFamily(registry, "temper_train_rank_compute_ratio",
                        "Time of the newest step that a rank did not wait for others, over the ranks' median")),
        peak_memory(GaugeFamily(registry, "temper_train_peak_memory_bytes",
                                "Most memory that rank 0 of a job has had resident so far")),
        checkpoint_step(GaugeFamily(registry, "temper_checkpoint_last_committed_step",
                                    "Step of the newest committed checkpoint of a job")),
        tokens(CounterFamily(registry, "temper_train_tokens_total", "Tokens, not padding, that a job was trained on")),
        scored(CounterFamily(registry, "temper_train_scored_tokens_total", "Tokens that the loss looked at")),
        sent(CounterFamily(registry, "temper_train_sent_bytes_total",
                           "Bytes that rank 0 of a job has sent to its other ranks in its steps")),
        skipped(CounterFamily(registry, "temper_train_skipped_steps_total",
                              "Steps that changed no weight: not finite, or a spike that was left out")),
        launches(CounterFamily(registry, "temper_job_launches_total", "Gangs that were launched for a job")),
        time(CounterFamily(registry, "temper_job_time_seconds_total",
                           "Wall-clock time of a job since it was created, by what it was spent on")),
        phase_seconds(CounterFamily(registry, "temper_train_phase_seconds_total",
                                    "Time of the steps that a job has taken, by part of the step")),
        lost_steps(CounterFamily(registry, "temper_lost_steps_total",
                                 "Steps that were taken again after a gang was lost, by the cause of its end")),
        checkpoint_seconds(HistogramFamily(registry, "temper_checkpoint_seconds",
                                           "Time of a checkpoint: training paused, and until it was committed")),
        step_seconds(HistogramFamily(registry, "temper_train_step_seconds", "Wall-clock time of an optimizer step")),
        queue_wait(HistogramFamily(registry, "temper_queue_wait_seconds",
                                   "Time from when a job was queued, at first or again, until its gang was launched")
                       .Add({}, kQueueBuckets)) {}

  Family<Gauge>&info, &state, &step, &loss, &grad_norm, &learning_rate, &padding, &mfu, &hfu, &objective, &rank_compute,
      &peak_memory, &checkpoint_step;
  Family<Counter>&tokens, &scored, &sent, &skipped, &launches, &time, &phase_seconds, &lost_steps;
  Family<Histogram>&checkpoint_seconds, &step_seconds;
  Histogram& queue_wait;
};

struct JobMetrics::JobSeries {
  // From the first step on.
  struct Training {
    Training(Families& families, const prometheus::Labels& job)
        : step(families.step, job),
          loss(families.loss, job),
          grad_norm(families.grad_norm, job),
          learning_rate(families.learning_rate, job),
          padding(families.padding, job),
          mfu(families.mfu, job),
          hfu(families.hfu, job),
          peak_memory(families.peak_memory, job),
          tokens(families.tokens, job),
          scored(families.scored, job),
          sent(families.sent, job),
          skipped(families.skipped, job),
          step_seconds(families.step_seconds, job, kStepBuckets) {}
    Series<Gauge> step, loss, grad_norm, learning_rate, padding, mfu, hfu, peak_memory;
    Series<Counter> tokens, scored, sent, skipped;
    Series<Histogram> step_seconds;
    std::map<std::string, Series<Counter>> phases;
    std::vector<Series<Gauge>> rank_compute;         // by rank
    std::map<std::string, Series<Gauge>> objective;  // by figure
  };

  Series<Gauge> info;
  Series<Counter> launches;
  std::vector<std::pair<v1::JobState, Series<Gauge>>> states;
  std::unique_ptr<Training> training;
  // From the first checkpoint on.
  struct Checkpoints {
    Checkpoints(Families& families, const std::string& id)
        : step(families.checkpoint_step, {{"job", id}}),
          pause(families.checkpoint_seconds, {{"job", id}, {"stage", "pause"}}, kCheckpointBuckets),
          commit(families.checkpoint_seconds, {{"job", id}, {"stage", "commit"}}, kCheckpointBuckets) {}
    Series<Gauge> step;
    Series<Histogram> pause, commit;
  };
  std::unique_ptr<Checkpoints> checkpoints;
  std::map<v1::FailureCause, Series<Counter>> lost_steps;
  v1::Job now;  // of the job, what tells where its time goes: state, phase, time_spent
  std::map<std::string, Series<Counter>> time;
  v1::FailureCause last_ending = v1::FAILURE_CAUSE_UNSPECIFIED;  // of a gang
  int64_t counted_step = 0;                                      // a step that is taken again is not counted again
  double queued_since = 0;                                       // seconds of the epoch; 0 when not queued
  std::optional<WallTime> ended;
};

JobMetrics::JobMetrics(prometheus::Registry& registry, const Clock& clock, JobMetricsOptions options)
    : clock_(clock), options_(options), families_(std::make_unique<Families>(registry)) {}

JobMetrics::~JobMetrics() = default;

JobMetrics::JobSeries* JobMetrics::Find(const v1::Job& job) {
  const std::string id = IdOf(job);
  if (const auto found = jobs_.find(id); found != jobs_.end()) return &found->second;
  if (static_cast<int>(jobs_.size()) >= options_.max_jobs) Evict();
  if (static_cast<int>(jobs_.size()) >= options_.max_jobs) return nullptr;
  JobSeries& series = jobs_[id];
  series.info = {families_->info,
                 {{"job", id},
                  {"name", Label(job.spec().display_name())},
                  {"model", Label(job.spec().model().uri())},
                  {"method", MethodName(job.spec())}}};
  series.info->Set(1);
  series.launches = {families_->launches, {{"job", id}}};
  for (int i = v1::JobState_MIN + 1; i <= v1::JobState_MAX; ++i) {
    if (!v1::JobState_IsValid(i)) continue;
    const auto state = static_cast<v1::JobState>(i);
    series.states.emplace_back(state, Series<Gauge>(families_->state, {{"job", id}, {"state", StateName(state)}}));
  }
  return &series;
}

void JobMetrics::Evict() {
  auto oldest = jobs_.end();
  for (auto it = jobs_.begin(); it != jobs_.end(); ++it) {
    if (it->second.ended && (oldest == jobs_.end() || *it->second.ended < *oldest->second.ended)) oldest = it;
  }
  if (oldest != jobs_.end()) jobs_.erase(oldest);
}

void JobMetrics::SetState(JobSeries& series, const v1::StateChange& change, double time) {
  for (auto& [state, gauge] : series.states) gauge->Set(state == change.state() ? 1 : 0);
  series.launches->Increment(std::max(0.0, change.epoch() - series.launches->Value()));
  if (change.state() == v1::JOB_STATE_QUEUED) {
    series.queued_since = time;
  } else {
    const double since = std::exchange(series.queued_since, 0);
    if (change.state() == v1::JOB_STATE_STARTING && since > 0)
      families_->queue_wait.Observe(std::max(0.0, time - since));
  }
  if (change.state() == v1::JOB_STATE_STOPPING) series.last_ending = change.cause();
  if (IsFinal(change.state())) series.ended = clock_.Wall();
}

void JobMetrics::AddCheckpoint(const std::string& id, JobSeries& series, const v1::CheckpointCommitted& checkpoint) {
  if (series.checkpoints == nullptr) series.checkpoints = std::make_unique<JobSeries::Checkpoints>(*families_, id);
  series.checkpoints->step->Set(static_cast<double>(checkpoint.step()));
  // One whose gang did not live to report it has no times.
  if (checkpoint.commit_seconds() <= 0) return;
  series.checkpoints->pause->Observe(checkpoint.pause_seconds());
  series.checkpoints->commit->Observe(checkpoint.commit_seconds());
}

void JobMetrics::AddLostSteps(const std::string& id, JobSeries& series, int64_t steps) {
  if (steps <= 0) return;
  const v1::FailureCause cause = series.last_ending;
  SeriesOf(series.lost_steps, families_->lost_steps, {{"job", id}, {"cause", CauseName(cause)}}, cause)
      ->Increment(static_cast<double>(steps));
}

void JobMetrics::SetRankCompute(const std::string& id, JobSeries& series, const v1::StepMetrics& step) {
  JobSeries::Training& training = *series.training;
  const auto& seconds = step.rank_compute_seconds();
  const auto ranks = static_cast<size_t>(seconds.size());
  training.rank_compute.resize(std::min(training.rank_compute.size(), ranks));  // a gang may be smaller than the last
  if (ranks == 0) return;
  std::vector<float> sorted(seconds.begin(), seconds.end());
  std::sort(sorted.begin(), sorted.end());
  const double median = (sorted[(ranks - 1) / 2] + sorted[ranks / 2]) / 2.0;
  for (size_t rank = 0; rank < ranks; ++rank) {
    if (rank == training.rank_compute.size()) {
      training.rank_compute.emplace_back(families_->rank_compute,
                                         prometheus::Labels{{"job", id}, {"rank", std::to_string(rank)}});
    }
    training.rank_compute[rank]->Set(median > 0 ? seconds[static_cast<int>(rank)] / median : 1);
  }
}

void JobMetrics::AddStep(const std::string& id, JobSeries& series, const v1::StepMetrics& step, bool counts) {
  if (series.training == nullptr) {
    series.training = std::make_unique<JobSeries::Training>(*families_, prometheus::Labels{{"job", id}});
  }
  JobSeries::Training& training = *series.training;
  training.step->Set(static_cast<double>(step.step()));
  training.loss->Set(step.loss());
  training.grad_norm->Set(step.grad_norm());
  training.learning_rate->Set(step.learning_rate());
  training.padding->Set(step.padding_ratio());
  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  training.mfu->Set(step.has_mfu() ? step.mfu() : kUnknown);
  training.hfu->Set(step.has_hfu() ? step.hfu() : kUnknown);
  training.peak_memory->Set(static_cast<double>(step.peak_memory_bytes()));
  for (const auto& [figure, value] : step.objective()) {
    SeriesOf(training.objective, families_->objective, {{"job", id}, {"figure", figure}}, figure)->Set(value);
  }
  SetRankCompute(id, series, step);
  if (step.step() <= series.counted_step) return;
  series.counted_step = step.step();
  if (!counts) return;
  training.tokens->Increment(static_cast<double>(std::max<int64_t>(0, step.tokens())));
  training.scored->Increment(static_cast<double>(std::max<int64_t>(0, step.scored_tokens())));
  training.sent->Increment(static_cast<double>(std::max<int64_t>(0, step.sent_bytes())));
  if (step.skipped()) training.skipped->Increment();
  training.step_seconds->Observe(step.seconds());
  const v1::StepPhases& phases = step.phases();
  for (const auto& [phase, seconds] :
       std::initializer_list<std::pair<const char*, double>>{{"data", phases.data()},
                                                             {"forward", phases.forward()},
                                                             {"backward", phases.backward()},
                                                             {"optimizer", phases.optimizer()},
                                                             {"communication", phases.communication()},
                                                             {"checkpoint", phases.checkpoint()},
                                                             {"other", phases.other()}}) {
    SeriesOf(training.phases, families_->phase_seconds, {{"job", id}, {"phase", phase}}, std::string(phase))
        ->Increment(seconds);
  }
}

void JobMetrics::SetTime(const std::string& id, JobSeries& series) {
  if (!series.now.has_time_spent()) return;
  v1::Job job = series.now;
  // What becomes of the time since the last step, the next one tells.
  const bool training = job.state() == v1::JOB_STATE_RUNNING && job.phase() == v1::PHASE_TRAINING;
  if (!training && !IsFinal(job.state())) SpendUntil(job, clock_.Wall());
  for (const auto& [category, seconds] : Categories(job.time_spent())) {
    const Series<Counter>& counter =
        SeriesOf(series.time, families_->time, {{"job", id}, {"category", category}}, category);
    counter->Increment(std::max(0.0, seconds - counter->Value()));
  }
}

void JobMetrics::AddExisting(const v1::Job& job) {
  std::lock_guard lock(mutex_);
  JobSeries* series = Find(job);
  if (series == nullptr) return;
  v1::StateChange change;
  change.set_state(job.state());
  change.set_epoch(job.epoch());
  SetState(*series, change, Seconds(job.create_time()));
  if (job.has_latest_step()) AddStep(IdOf(job), *series, job.latest_step(), /*counts=*/false);
  // A gang that takes steps again is behind it.
  series->counted_step = std::max(series->counted_step, job.time_spent().highest_step());
  series->now = TimeOf(job);
}

void JobMetrics::OnEvent(const v1::Job& job, const v1::JobEvent& event) {
  std::lock_guard lock(mutex_);
  JobSeries* series = Find(job);
  if (series == nullptr) return;
  if (event.has_state()) SetState(*series, event.state(), Seconds(event.time()));
  if (event.has_step()) AddStep(IdOf(job), *series, event.step(), /*counts=*/true);
  if (event.has_checkpoint()) AddCheckpoint(IdOf(job), *series, event.checkpoint());
  series->now = TimeOf(job);
  if (event.has_resumption()) AddLostSteps(IdOf(job), *series, event.resumption().lost_steps());
}

void JobMetrics::Refresh() {
  std::lock_guard lock(mutex_);
  for (auto& [id, series] : jobs_) SetTime(id, series);
  const WallTime now = clock_.Wall();
  std::erase_if(jobs_, [&](const auto& entry) {
    return entry.second.ended && now - *entry.second.ended >= options_.ended_retention;
  });
}

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#include "worker/train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/failure.h"
#include "worker/model/gradient.h"
#include "worker/ops/matmul_peak.h"
#include "worker/train/adamw.h"
#include "worker/train/lr_schedule.h"
#include "worker/train/model_export.h"
#include "worker/train/step_metrics.h"
#include "worker/train/train_step.h"
#include "worker/train/training_data.h"

namespace temper {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

absl::Status Stopped() { return absl::CancelledError("stopped on request"); }

at::ScalarType ComputeDtype(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return at::kFloat;
    case Precision::kBf16:
      return at::kBFloat16;
    case Precision::kAuto:
      break;
  }
  return ops::CpuHasNativeBf16() ? at::kBFloat16 : at::kFloat;
}

absl::Status NotFinite(std::string_view what, int64_t step, double learning_rate) {
  return WithCause(absl::AbortedError(absl::StrFormat(
                       "the %s of step %d is not finite (learning rate %g): lower training.learning_rate, set "
                       "training.max_grad_norm, or look for broken samples",
                       what, step, learning_rate)),
                   FailureCause::kNumerics);
}

// Takes the optimizer steps of a run.
class StepLoop {
 public:
  StepLoop(const TrainJob& job, Transformer& model, at::ScalarType dtype, BatchStream& batches, TrainObserver& observer)
      : job_(job),
        model_(model),
        batches_(batches),
        dtype_(dtype),
        observer_(observer),
        peak_flops_(ops::MeasureMatmulPeak(dtype)),
        rates_(model.flop_rates()),
        optimizer_(model.parameters(), job.training.adamw) {}

  absl::Status Run(const std::atomic<bool>& stop) {
    const int64_t total_steps = batches_.total_steps();
    for (int64_t step = 1; step <= total_steps; ++step) {
      if (const absl::Status status = TakeStep(step, total_steps, stop); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status TakeStep(int64_t step, int64_t total_steps, const std::atomic<bool>& stop) {
    const Clock::time_point begin = Clock::now();
    const std::vector<MicroBatch> batches = batches_.NextStep();
    const StepWork work = CountWork(batches);

    ZeroGradients(model_.parameters());
    double loss = 0;
    for (const MicroBatch& batch : batches) {
      if (stop) return Stopped();
      loss += ForwardBackward(model_, batch, objective_, static_cast<double>(work.scored_tokens));
    }
    const double learning_rate = LearningRate(job_.training, step, total_steps);
    if (!std::isfinite(loss)) return NotFinite("loss", step, learning_rate);
    const double norm = GlobalGradientNorm(model_.parameters());
    if (!std::isfinite(norm)) return NotFinite("gradient", step, learning_rate);
    optimizer_.Step(learning_rate, ClipScale(norm, job_.training.max_grad_norm));

    total_tokens_ += work.tokens;
    const double seconds = SecondsSince(begin);
    CorrectPeak(HardwareFlops(rates_, work) / seconds);
    observer_.OnStep({
        .step = step,
        .total_steps = total_steps,
        .loss = loss,
        .grad_norm = norm,
        .learning_rate = learning_rate,
        .tokens = work.tokens,
        .scored_tokens = work.scored_tokens,
        .total_tokens = total_tokens_,
        .padding_ratio = 1.0 - static_cast<double>(work.tokens) / static_cast<double>(work.capacity),
        .seconds = seconds,
        .mfu = ModelFlops(rates_, work) / (seconds * peak_flops_),
        .hfu = HardwareFlops(rates_, work) / (seconds * peak_flops_),
        .peak_memory_bytes = PeakMemoryBytes(),
        .epoch = batches_.epochs_done(),
    });
    return absl::OkStatus();
  }

  // The machine was busy when its peak was measured if a whole step is faster: the denominator of MFU is then measured
  // again, and is never below what was reached.
  void CorrectPeak(double reached) {
    if (reached <= peak_flops_) return;
    peak_flops_ = std::max(reached, ops::MeasureMatmulPeak(dtype_));
    observer_.OnLog(LogSeverity::kWarning,
                    absl::StrFormat("the machine was busy when its peak was measured; it is %.0f GFLOP/s now, and the "
                                    "MFU of earlier steps was too high",
                                    peak_flops_ / 1e9));
  }

  const TrainJob& job_;
  Transformer& model_;
  BatchStream& batches_;
  const at::ScalarType dtype_;
  TrainObserver& observer_;
  double peak_flops_;
  const FlopRates rates_;
  AdamW optimizer_;
  const SupervisedObjective objective_;
  int64_t total_tokens_ = 0;
};

// Where the job's adapters go; none in full training.
absl::StatusOr<std::vector<AdapterSite>> FindSites(const TrainJob& job, const NativeRepository& source) {
  if (!job.lora) return std::vector<AdapterSite>();
  return FindAdapterSites(*source.family, source.config, job.lora->targets);
}

std::optional<LoraConfig> MakeLora(const TrainJob& job, const std::vector<AdapterSite>& sites) {
  if (!job.lora) return std::nullopt;
  LoraConfig config = {.rank = job.lora->rank, .alpha = job.lora->alpha, .seed = job.training.seed};
  for (const AdapterSite& site : sites) config.sites.push_back(site.internal);
  return config;
}

absl::Status Train(const TrainJob& job, TrainObserver& observer, const std::atomic<bool>& stop) {
  observer.OnPhase(TrainPhase::kPreparingData, 0);
  const auto output = ObjectStore::Open(job.output.uri);
  if (!output.ok()) return output.status();
  if (const absl::Status writable = CheckOutputWritable(**output, job); !writable.ok()) return writable;
  const auto source = OpenNativeRepository(job.model_uri);
  if (!source.ok()) return source.status();
  const auto sites = FindSites(job, *source);
  if (!sites.ok()) return sites.status();
  const auto data = OpenTrainingData(job, source->config, observer, stop);
  if (!data.ok()) return data.status();
  if (stop) return Stopped();

  observer.OnPhase(TrainPhase::kLoadingModel, (*data)->total_steps());
  const at::ScalarType dtype = ComputeDtype(job.training.precision);
  const auto model = LoadTransformer(*source, {.dtype = dtype, .lora = MakeLora(job, *sites)});
  if (!model.ok()) return model.status();
  observer.OnLog(LogSeverity::kInfo, absl::StrFormat("%s, %s, %d threads", source->family->architecture,
                                                     dtype == at::kBFloat16 ? "bf16" : "fp32", at::get_num_threads()));

  observer.OnPhase(TrainPhase::kTraining, (*data)->total_steps());
  if (const absl::Status trained = StepLoop(job, **model, dtype, **data, observer).Run(stop); !trained.ok()) {
    return trained;
  }

  observer.OnPhase(TrainPhase::kExporting, (*data)->total_steps());
  // Any text will do; the first row is real.
  if (const absl::Status status = (*data)->Seek({}); !status.ok()) return status;
  const auto exported = ExportAndProve(**output, job, *source, *sites, **model, (*data)->NextStep().front(), observer);
  if (!exported.ok()) return exported.status();
  observer.OnLog(LogSeverity::kInfo, absl::StrCat("the export is proved: ", exported->proof));
  observer.OnExport(exported->uri, exported->bytes, exported->files);
  return absl::OkStatus();
}

absl::Status OutOfMemory(const std::string& detail) {
  return WithCause(
      absl::ResourceExhaustedError(absl::StrCat(
          "out of memory: lower training.micro_batch_tokens, or train adapters (lora). The system said: ", detail)),
      FailureCause::kOutOfMemory);
}

}  // namespace

absl::Status RunTrainJob(const TrainJob& job, TrainObserver& observer, const std::atomic<bool>& stop) {
  at::set_num_threads(job.threads > 0 ? job.threads : static_cast<int>(std::thread::hardware_concurrency()));
  try {
    return Train(job, observer, stop);
  } catch (const c10::Error& error) {
    // torch reports a failed allocation as a plain error.
    const std::string message = error.what_without_backtrace();
    if (message.find("can't allocate memory") != std::string::npos) return OutOfMemory(message);
    return absl::InternalError(message);
  } catch (const std::bad_alloc& error) {
    return OutOfMemory(error.what());
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#include "worker/train/preflight.h"

#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/counted.h"
#include "common/failure.h"
#include "common/fault_point.h"
#include "worker/checkpoint/native_model.h"
#include "worker/ops/matmul_peak.h"
#include "worker/text/template_files.h"
#include "worker/train/choose_backend.h"
#include "worker/train/compute_dtype.h"
#include "worker/train/device.h"
#include "worker/train/exception_barrier.h"
#include "worker/train/memory_estimate.h"
#include "worker/train/model_export.h"
#include "worker/train/plan_adapters.h"
#include "worker/train/reference_pass.h"
#include "worker/train/teacher.h"
#include "worker/train/threads.h"
#include "worker/train/training_data.h"

namespace temper {
namespace {

constexpr int64_t kShownSamples = 3;
constexpr int64_t kShownTokens = 2000;  // of a sample
constexpr double kUsualMfu = 0.5;
constexpr double kMuchPadding = 0.2;
constexpr double kFewScored = 0.01;
constexpr double kManyLost = 0.1;

// A process that looks must not get in the way of those that train.
void StepBehind() { setpriority(PRIO_PROCESS, 0, 10); }

// Tokens that are decoded together: a character may be several.
PreflightPiece Decode(const Tokenizer& tokenizer, absl::Span<const uint32_t> ids, bool scored) {
  const absl::StatusOr<std::string> text = tokenizer.Decode(ids);
  return {text.ok() ? *text : "�", scored};
}

PreflightSample Show(const Tokenizer& tokenizer, const SampleSet::Document& document) {
  const auto& [ids, scored] = document;
  PreflightSample shown{.tokens = static_cast<int64_t>(ids.size()),
                        .scored_tokens = std::count(scored.begin(), scored.end(), 1)};
  const size_t end = std::min<size_t>(ids.size(), kShownTokens);
  for (size_t begin = 0; begin < end;) {
    size_t next = begin + 1;
    while (next < end && scored[next] == scored[begin]) ++next;
    shown.pieces.push_back(Decode(tokenizer, ids.subspan(begin, next - begin), scored[begin] != 0));
    begin = next;
  }
  if (end < ids.size()) shown.pieces.push_back({" …", false});
  return shown;
}

std::vector<PreflightSample> ShowFirst(const Tokenizer& tokenizer, const SampleSet& samples) {
  std::vector<PreflightSample> shown;
  for (int64_t i = 0; i < std::min(kShownSamples, samples.size()); ++i) {
    const bool pair = samples.documents_per_sample() == 2;
    for (int document = 0; document < samples.documents_per_sample(); ++document) {
      shown.push_back(Show(tokenizer, samples.document(i, document)));
      if (pair) shown.back().part = document == 0 ? "chosen" : "rejected";
    }
  }
  return shown;
}

// All that is worth a sentence.
class Checks {
 public:
  explicit Checks(std::vector<PreflightCheck>& checks) : checks_(checks) {}

  void Good(std::string text) { checks_.push_back({LogSeverity::kInfo, std::move(text)}); }
  void Warn(std::string text) { checks_.push_back({LogSeverity::kWarning, std::move(text)}); }

  // Generation ends where the config says; training teaches where answers end.
  void EndOfTurn(const NativeRepository& model, TrainingData& data) {
    const SampleSet& samples = data.batches().samples();
    std::map<uint32_t, int64_t> ends;
    for (int64_t i = 0; i < samples.size(); ++i) {
      const auto& [ids, scored] = samples.document(i, 0);  // of a pair, the chosen answer's
      for (size_t t = scored.size(); t-- > 0;) {
        if (scored[t] == 0) continue;
        ++ends[ids[t]];
        break;
      }
    }
    const auto most =
        std::max_element(ends.begin(), ends.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    if (most == ends.end()) return;
    const std::set<int64_t> stops = StopTokens(model);
    const auto name = [&data](int64_t id) {
      const auto token = data.tokenizer().IdToToken(static_cast<uint32_t>(id));
      return absl::StrCat(token.ok() ? *token : "?", " (", id, ")");
    };
    if (!data.tokenizer().IsAdded(most->first)) {
      // Samples that were cut off end anywhere, and so do templates without an end of turn.
      Warn(absl::StrCat("what is learned ends with ", name(most->first),
                        " more often than with any special token: the model will not learn where to stop. Check the "
                        "chat template's end of turn, and raise data.max_sample_tokens if samples are cut off"));
      return;
    }
    if (stops.contains(most->first)) {
      Good(absl::StrCat("what is learned ends with ", name(most->first), ", and generation stops there"));
      return;
    }
    std::vector<std::string> names;
    for (const int64_t stop : stops) names.push_back(name(stop));
    Warn(absl::StrCat(
        "what is learned ends with ", name(most->first), ", but generation stops only at ",
        names.empty() ? "nothing" : absl::StrJoin(names, ", "),
        ": add the token to eos_token_id in generation_config.json of the model, or answers will not end"));
  }

  void Template(const TrainingData& data) {
    if (!data.chat_template().ok()) {
      Good("the model has no chat template; the samples need none");
    } else if (data.chat_template()->HasGenerationTags()) {
      Good("the chat template marks what the assistant says with {% generation %}");
    } else {
      Good("the chat template has no {% generation %} tags; what the assistant says was found from its text");
    }
  }

  void Vocabulary(const NativeRepository& model, const TrainingData& data) {
    const int64_t rows = model.config.vocab_size, tokens = data.tokenizer().max_id() + 1;
    Good(absl::StrCat("the tokenizer has ids up to ", tokens - 1, ", the embedding ", rows, " rows",
                      rows > tokens ? absl::StrCat("; ", rows - tokens, " are spare") : ""));
  }

  void Head(const NativeRepository& model) {
    const RepositoryTensor* const stored = model.repository->FindTensor("lm_head.weight");
    if (model.config.score_head) {
      Good(absl::StrCat("the export is a ", model.architecture(),
                        ": an answer is scored at its last token other than padding (", model.config.pad_token, ")"));
    } else if (!model.config.tied_head) {
      Good("the head has weights of its own");
    } else if (stored == nullptr) {
      Good("the head is tied to the embedding");
    } else {
      Good("the head is tied to the embedding; the lm_head.weight that is stored as well equals it");
    }
  }

  void Beginning(TrainingData& data, const std::string& bos) {
    const SampleSet& samples = data.batches().samples();
    const auto id = bos.empty() ? std::nullopt : data.tokenizer().TokenToId(bos);
    if (!id || samples.size() == 0 || samples.length(0) < 2) return;
    if (samples.ids(0)[0] == *id && samples.ids(0)[1] == *id) {
      Warn(absl::StrCat("samples begin with ", bos,
                        " twice: the text has one, and the tokenizer puts one before it. "
                        "Take it out of the data or the template"));
    }
  }

  void Teacher(const ChosenModel& teacher, const MemoryEstimate& memory) {
    Good(absl::StrFormat("the teacher has the model's tokens, and takes %.1f GB of the memory; %s",
                         static_cast<double>(memory.total()) / 1e9, teacher.reason));
    if (!teacher.warning.empty()) Warn(absl::StrCat("the teacher: ", teacher.warning));
  }

  // Of a share of scored tokens below `few` it is said.
  void Data(const DataReport& data, int64_t max_sample_tokens, double few) {
    const SampleStatistics& samples = data.samples;
    const auto share = [](int64_t part, int64_t whole) {
      return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
    };
    const double cut = share(samples.truncated, samples.read), lost = share(samples.dropped_overlong, samples.read);
    if (cut + lost > kManyLost) {
      Warn(
          absl::StrFormat("%.0f %% of the samples are longer than %d tokens: %d cut off, %d left out. Raise "
                          "data.max_sample_tokens and training.micro_batch_tokens, or split them",
                          100 * (cut + lost), max_sample_tokens, samples.truncated, samples.dropped_overlong));
    }
    if (samples.refused > 0) {
      Warn(absl::StrCat(Counted(samples.refused, "sample"),
                        " left out, with nothing to learn: correct them, or look at data.train_on; the first: ",
                        samples.first_refusal));
    }
    if (share(samples.scored_tokens, samples.tokens) < few) {
      Warn(absl::StrFormat("only %.2g %% of the tokens are learned: look at the samples above, and at data.train_on",
                           100 * share(samples.scored_tokens, samples.tokens)));
    }
    if (data.padding_ratio > kMuchPadding) {
      Warn(
          absl::StrFormat("%.0f %% of the rows' room stays empty: raise training.micro_batch_tokens, or lower it to a "
                          "multiple of the usual sample",
                          100 * data.padding_ratio));
    }
  }

  // Ranks take a step's micro-batches in turn.
  void Ranks(const TrainJob& job) {
    const int64_t rows = std::max<int64_t>(1, job.training.tokens_per_step / job.training.micro_batch_tokens);
    if (rows % job.ranks == 0) return;
    Warn(absl::StrCat("a step has ", Counted(rows, "micro-batch"), " for ", job.ranks,
                      " ranks: some wait while others compute. Set training.tokens_per_step to a multiple of ",
                      job.ranks, " times training.micro_batch_tokens"));
  }

  // `recomputed`: Describe().
  void Memory(const MemoryEstimate& memory, const std::string& recomputed, DeviceKind device) {
    constexpr double kGb = 1e9;
    if (device != DeviceKind::kCpu) {
      return Good(absl::StrFormat("training needs about %.1f GB of each GPU's memory",
                                  static_cast<double>(memory.total()) / kGb));
    }
    const std::string need = absl::StrFormat(
        "training needs about %.1f GB of memory, %.1f GB are there%s", static_cast<double>(memory.total()) / kGb,
        static_cast<double>(memory.available) / kGb, recomputed.empty() ? "" : absl::StrCat("; ", recomputed));
    if (memory.total() <= memory.available) {
      Good(need);
    } else {
      Warn(absl::StrCat(need, ": lower training.micro_batch_tokens, train adapters (lora), or use a larger machine"));
    }
  }

 private:
  // What generation_config.json, or else config.json, says.
  static std::set<int64_t> StopTokens(const NativeRepository& model) {
    nlohmann::json value;
    if (model.repository->HasFile("generation_config.json")) {
      const auto text = model.repository->store().Read("generation_config.json");
      if (text.ok()) {
        const auto json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
        if (json.is_object()) value = json.value("eos_token_id", nlohmann::json());
      }
    }
    if (value.is_null()) value = model.repository->config().value("eos_token_id", nlohmann::json());
    std::set<int64_t> stops;
    for (const auto& id : value.is_array() ? value : nlohmann::json::array({value})) {
      if (id.is_number_integer()) stops.insert(id.get<int64_t>());
    }
    return stops;
  }

  std::vector<PreflightCheck>& checks_;
};

// FLOPs of a forward pass of one token, near enough: all matrices of the blocks, and the head on scored tokens.
double ForwardFlops(const ModelConfig& config, double scored_share) {
  const AttentionConfig& attention = config.attention;
  const int64_t block =
      config.hidden_size * (2 * attention.num_heads + 2 * attention.num_kv_heads) * attention.head_dim +
      3 * config.hidden_size * config.widest_feed_forward();
  return 2 * (static_cast<double>(block * config.num_layers) +
              static_cast<double>(config.head_rows() * config.hidden_size) * scored_share);
}

// Of a run: forward (for a reference as well, in each step or once, and of a teacher), back to the input, and, when
// trained, to the weights. `teacher`: null without.
double EstimateSeconds(const TrainJob& job, const ModelConfig& config, const NativeRepository* teacher,
                       const DataReport& data, int64_t steps, at::ScalarType dtype) {
  const double scored_share =
      static_cast<double>(data.samples.scored_tokens) / static_cast<double>(std::max<int64_t>(1, data.samples.tokens));
  const bool pass = NeedsReferencePass(job);
  const bool reference = job.preference && NeedsReference(job.preference->loss) && !pass;
  const double forward = ForwardFlops(config, scored_share);
  const double of_teacher = teacher == nullptr ? 0 : ForwardFlops(teacher->config, scored_share);
  const double tokens =
      static_cast<double>(steps) * static_cast<double>(job.training.tokens_per_step) * (1 - data.padding_ratio);
  const double before = pass ? forward * static_cast<double>(data.samples.tokens) : 0;
  const double a_token = ((job.lora ? 2 : 3) + (reference ? 1 : 0)) * forward + of_teacher;
  return (before + tokens * a_token) / (kUsualMfu * ops::MeasureMatmulPeak(dtype));
}

// What the machine's memory holds beside a GPU's is not counted.
void AddHost(const TrainJob& job, int64_t process, int64_t data, int64_t available, MemoryEstimate& memory) {
  if (job.device != DeviceKind::kCpu) return;
  memory.process = job.ranks_per_node * process;
  memory.data = job.ranks_per_node * std::max<int64_t>(0, data);
  memory.available = available;
}

bool TakesCheckpoints(const TrainJob& job, int64_t steps, double seconds) {
  const CheckpointOptions& policy = job.checkpoint_options;
  return job.validation.has_value() || (policy.every_steps > 0 && policy.every_steps <= steps) ||
         (policy.every_minutes > 0 && seconds >= 60 * policy.every_minutes);
}

absl::Status Look(const TrainJob& job, TrainObserver& observer, const StopSignal& stop, const ModelVerifier& verifier) {
  observer.OnPhase(TrainPhase::kPreparingData, 0);
  if (absl::Status built = CheckDevice(job); !built.ok()) return built;
  const int64_t process = ResidentBytes();
  const int64_t available = job.device == DeviceKind::kCpu ? AvailableBytes() : 0;
  const auto output = ObjectStore::Open(job.output.uri);
  if (!output.ok()) return output.status();
  if (const absl::Status writable = CheckOutput(**output, job); !writable.ok()) return writable;
  const at::ScalarType dtype = ComputeDtype(job.training.precision, job.device);
  const auto chosen = ChooseBackend(job, dtype, verifier,
                                    [&observer](const std::string& text) { observer.OnLog(LogSeverity::kInfo, text); });
  if (!chosen.ok()) return chosen.status();
  const NativeRepository* const model = &chosen->model;
  const auto plan = PlanAdapters(job, *model);
  if (!plan.ok()) return plan.status();
  if (absl::Status sound = CheckCheckpoint(*model, ModelOptions(job, plan->get(), dtype)); !sound.ok()) return sound;
  const auto data = TrainingData::Open(job, model->config, observer, stop.requested());
  if (!data.ok()) return data.status();
  const int64_t with_data = ResidentBytes();
  const auto teacher = ChooseTeacher(job, dtype, verifier);
  if (!teacher.ok()) return teacher.status();
  const NativeRepository* const teaches = *teacher ? &(*teacher)->model : nullptr;
  const absl::Status able = teaches == nullptr ? absl::OkStatus() : CheckTeacher(job, *teaches, dtype, **data);
  if (!able.ok()) return able;
  if (stop.requested()) return absl::CancelledError("stopped on request");

  PreflightReport report;
  report.data = (*data)->report();
  report.total_steps = (*data)->batches().total_steps();
  report.samples = ShowFirst((*data)->tokenizer(), (*data)->batches().samples());
  if (job.device == DeviceKind::kCpu) {
    report.estimated_seconds = EstimateSeconds(job, model->config, teaches, report.data, report.total_steps, dtype);
  }
  const bool bf16 = dtype == at::kBFloat16;
  const MemoryEstimate of_teacher = teaches == nullptr ? MemoryEstimate() : EstimateTeacher(job, *teaches, bf16);
  const auto recompute = ChooseRecompute(job, *model, plan->get(), bf16, available, of_teacher);
  report.memory = EstimateMemory(job, *model, plan->get(), bf16,
                                 TakesCheckpoints(job, report.total_steps, report.estimated_seconds), recompute);
  report.memory.weights += of_teacher.weights;
  report.memory.activations += of_teacher.activations;
  AddHost(job, process, with_data - process, available, report.memory);

  Checks checks(report.checks);
  observer.OnBackend(chosen->backend(), chosen->reason);
  report.backend = chosen->backend();
  report.backend_reason = chosen->reason;
  if (!chosen->warning.empty()) checks.Warn(chosen->warning);
  const auto special_tokens = ReadSpecialTokens(model->repository->store());
  checks.Template(**data);
  if (!job.reward) checks.EndOfTurn(*model, **data);
  checks.Beginning(**data, special_tokens.ok() ? special_tokens->value("bos_token", "") : "");
  checks.Vocabulary(*model, **data);
  checks.Head(*model);
  if (teaches != nullptr) checks.Teacher(**teacher, of_teacher);
  checks.Data(report.data, (*data)->max_sample_tokens(), job.reward ? 0 : kFewScored);
  checks.Ranks(job);
  checks.Memory(report.memory, Describe(recompute), job.device);
  FaultPoint("rank.preflight.before_report");
  observer.OnPreflight(report);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunPreflight(const TrainJob& job, TrainObserver& observer, const StopSignal& stop,
                          const ModelVerifier& verifier) {
  StepBehind();
  at::set_num_threads(job.threads > 0 ? job.ranks_per_node * job.threads : ThreadsOf(job));
  return WithoutExceptions(observer, "out of memory while looking at model and data",
                           [&] { return Look(job, observer, stop, verifier); });
}

}  // namespace temper

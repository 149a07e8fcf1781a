// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/job_spec.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/rpc/status.h"
#include "common/storage/storage_uri.h"
#include "google/protobuf/message.h"
#include "google/protobuf/util/message_differencer.h"
#include "server/jobs/field_check.h"
#include "server/jobs/method_spec.h"
#include "server/jobs/unknown_values.h"

namespace temper {
namespace {

constexpr int64_t kMiB = 1 << 20;

// In UTF-8.
bool BeginsCharacter(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

// Of a path or URI, at most 100 bytes of whole characters.
std::string LastComponent(std::string_view path) {
  while (path.ends_with('/')) path.remove_suffix(1);
  path = path.substr(path.rfind('/') + 1);
  size_t size = std::min<size_t>(path.size(), 100);
  while (size < path.size() && size > 0 && !BeginsCharacter(path[size])) --size;
  return path.empty() ? "job" : std::string(path.substr(0, size));
}

bool IsControl(unsigned char c) { return c < 0x20 || c == 0x7f; }

// What a model is called by the URI of its directory.
std::string NameOf(std::string_view uri) {
  if (SchemeOf(uri) == StorageScheme::kHub) {
    if (const auto place = ParseHubUri(uri); place.ok()) {
      return LastComponent(place->path.empty() ? place->repository : place->path);
    }
  }
  return LastComponent(WithoutParameters(uri));
}

// The limits and defaults are those of proto/temper/v1/job.proto, in its order.
class SpecCheck : public FieldCheck {
 public:
  void DisplayName(v1::JobSpec& spec) {
    if (spec.display_name().empty()) {
      std::string name = NameOf(spec.model().uri());
      std::replace_if(name.begin(), name.end(), IsControl, '?');
      spec.set_display_name(name);
      return;
    }
    Name("display_name", spec.display_name());
  }

  // Which of our names for fields samples have.
  enum class Fields { kSamples, kPairs, kSamplesAndTeacher };

  static Fields FieldsOf(const v1::Method& method) {
    if (LearnsFromPairs(method)) return Fields::kPairs;
    const bool stored = method.has_distillation() && method.distillation().teacher().empty();
    return stored ? Fields::kSamplesAndTeacher : Fields::kSamples;
  }

  void Sources(v1::DataSource& data, Fields fields) {
    constexpr int kMaxSources = 1000;
    constexpr double kMaxWeight = 1000;
    if (data.sources().empty()) {
      Uri("data.uri", data.uri(), "a file of samples, a directory of them or a pattern");
      return;
    }
    if (!data.uri().empty()) Wrong("data", "must have uri or sources, not both");
    Require(data.sources_size() <= kMaxSources, "data.sources", "at most 1000 sources", data.sources_size());
    double weights = 0;
    for (int i = 0; i < std::min(data.sources_size(), kMaxSources); ++i) {
      v1::DataSource::Source& source = *data.mutable_sources(i);
      const std::string field = absl::StrCat("data.sources[", i, "]");
      Uri(field + ".uri", source.uri(), "a file of samples, a directory of them or a pattern");
      if (!source.has_weight()) source.set_weight(1);
      Require(source.weight() >= 0 && source.weight() <= kMaxWeight, field + ".weight", "0 to 1000", source.weight());
      weights += source.weight();
      Columns(source.columns(), fields, field + ".columns");
    }
    if (weights == 0) Wrong("data.sources", "have weights that sum to 0: nothing is left to train on");
  }

  // `method` is there.
  void Data(v1::JobSpec& spec) {
    v1::DataSource& data = *spec.mutable_data();
    const Fields fields = FieldsOf(spec.method());
    Sources(data, fields);
    Require(data.max_sample_tokens() == 0 || data.max_sample_tokens() >= 8, "data.max_sample_tokens", "at least 8",
            data.max_sample_tokens());
    if (data.overlong() == v1::DataSource::OVERLONG_UNSPECIFIED) {
      // Half an answer is no answer to score.
      data.set_overlong(spec.method().has_reward() ? v1::DataSource::OVERLONG_DROP : v1::DataSource::OVERLONG_TRUNCATE);
    }
    Columns(data.columns(), fields, "data.columns");
  }

  template <typename ProtoMap>
  void Columns(const ProtoMap& given, Fields fields, const std::string& path) {
    static const std::vector<std::string> kOfSamples = {"messages", "prompt",    "completion",          "text",
                                                        "tools",    "documents", "chat_template_kwargs"};
    static const std::vector<std::string> kOfPairs = {"prompt", "chosen",    "rejected",
                                                      "tools",  "documents", "chat_template_kwargs"};
    const bool pairs = fields == Fields::kPairs;
    std::vector<std::string> ours_are = pairs ? kOfPairs : kOfSamples;
    if (fields == Fields::kSamplesAndTeacher) ours_are.insert(ours_are.end(), {"teacher_tokens", "teacher_logprobs"});
    constexpr size_t kMaxBytes = 200;
    const std::map<std::string, std::string> columns(given.begin(), given.end());  // in order
    std::set<std::string> seen;
    for (const auto& [ours, theirs] : columns) {
      const std::string field = absl::StrCat(path, ".", LastComponent(ours));
      if (std::ranges::find(ours_are, ours) == ours_are.end()) {
        Wrong(field, absl::StrCat("is not one of ", absl::StrJoin(ours_are, ", "), pairs ? " of pairs" : "",
                                  ": the keys are our names, the values are the data's"));
      } else if (theirs.empty() || theirs.size() > kMaxBytes) {
        Wrong(field, absl::StrCat("must name a field of the data in 1 to ", kMaxBytes, " bytes"));
      } else if (!seen.insert(theirs).second) {
        Wrong(field, absl::StrCat("names '", theirs, "', which another of our names stands for already"));
      }
    }
    if (pairs) return;
    if (columns.contains("prompt") != columns.contains("completion")) {
      Wrong(path, "must name both prompt and completion, or neither");
    } else if (columns.contains("messages") + columns.contains("prompt") + columns.contains("text") > 1) {
      Wrong(path, "must choose among messages, prompt with completion, and text: a sample has one form");
    }
  }

  void Profile(v1::Profile& profile) {
    if (profile.first_step() == 0) profile.set_first_step(3);
    if (profile.steps() == 0) profile.set_steps(1);
    Require(profile.first_step() >= 1 && profile.first_step() <= 10'000'000, "profile.first_step", "1 to 10,000,000",
            profile.first_step());
    Require(profile.steps() >= 1 && profile.steps() <= 20, "profile.steps", "1 to 20", profile.steps());
  }

  void Validation(v1::Validation& validation) {
    switch (validation.set_case()) {
      case v1::Validation::kUri:
        Uri("validation.uri", validation.uri(), "a file of samples, a directory of them or a pattern");
        break;
      case v1::Validation::kShare:
        Require(validation.share() > 0 && validation.share() < 1, "validation.share", "over 0 and below 1",
                validation.share());
        break;
      case v1::Validation::SET_NOT_SET:
        Wrong("validation", "needs uri (samples of its own) or share (of the data)");
    }
    if (validation.max_samples() == 0) validation.set_max_samples(1000);
    Require(validation.max_samples() >= 1 && validation.max_samples() <= 1'000'000, "validation.max_samples",
            "1 to 1,000,000", validation.max_samples());
    Require(validation.every_steps() >= 0 && validation.every_steps() <= 10'000'000, "validation.every_steps",
            "1 to 10,000,000", validation.every_steps());
    if (!validation.has_early_stop()) return;
    v1::Validation::EarlyStop& stop = *validation.mutable_early_stop();
    if (stop.patience() == 0) stop.set_patience(3);
    Require(stop.patience() >= 1 && stop.patience() <= 1000, "validation.early_stop.patience", "1 to 1000",
            stop.patience());
    Require(stop.min_improvement() >= 0 && std::isfinite(stop.min_improvement()),
            "validation.early_stop.min_improvement", "at least 0", stop.min_improvement());
  }

  void Labels(const v1::JobSpec& spec) {
    constexpr size_t kMaxLabels = 32, kMaxCharacters = 63;
    const auto valid = [](const std::string& text) {
      return text.size() <= kMaxCharacters && std::all_of(text.begin(), text.end(), [](unsigned char c) {
               return std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == '/';
             });
    };
    Require(spec.labels().size() <= kMaxLabels, "labels", "at most 32", spec.labels().size());
    const std::map<std::string, std::string> labels(spec.labels().begin(), spec.labels().end());  // in order
    for (const auto& [key, value] : labels) {
      if (!key.empty() && valid(key) && valid(value)) continue;
      Wrong(absl::StrCat("labels.", key.substr(0, kMaxCharacters)),
            "must have at most 63 characters of a-z, A-Z, 0-9, '-', '_', '.' and '/', and a key at least one");
      break;
    }
  }

  // For names that are shown: UTF-8, which protobuf has made sure of, without control characters.
  void Name(std::string_view field, const std::string& name) {
    const auto characters = std::count_if(name.begin(), name.end(), BeginsCharacter);
    if (characters > 100) Wrong(field, absl::StrCat("must have at most 100 characters, not ", characters));
    if (std::any_of(name.begin(), name.end(), IsControl)) Wrong(field, "must not contain control characters");
  }

  // Names of modules and patterns for them.
  template <typename Names>
  void Modules(std::string_view field, const Names& names, std::string_view example) {
    constexpr size_t kMaxBytes = 500;
    std::set<std::string> seen;
    for (int i = 0; i < names.size(); ++i) {
      const std::string each = absl::StrCat(std::string(field), "[", i, "]");
      if (names[i].empty()) Wrong(each, absl::StrCat("must not be empty: a module's name, ", std::string(example)));
      if (names[i].size() > kMaxBytes) Wrong(each, absl::StrCat("must have at most ", kMaxBytes, " bytes"));
      if (!seen.insert(names[i]).second) Wrong(each, absl::StrCat("'", names[i].substr(0, 100), "' is given twice"));
    }
  }

  void Lora(v1::Lora& lora) {
    Require(lora.dropout() >= 0 && lora.dropout() < 1, "lora.dropout", "0 to below 1", lora.dropout());
    if (!lora.adapter().empty()) {
      Uri("lora.adapter", lora.adapter(), "a PEFT adapter's directory");
      const auto the_adapters = [&](bool given, std::string_view field) {
        if (given) Wrong(field, "is what lora.adapter says: leave it out");
      };
      the_adapters(lora.rank() != 0, "lora.rank");
      the_adapters(lora.alpha() != 0, "lora.alpha");
      the_adapters(!lora.targets().empty(), "lora.targets");
      the_adapters(lora.rslora(), "lora.rslora");
      the_adapters(lora.dora(), "lora.dora");
      the_adapters(!lora.modules_to_save().empty(), "lora.modules_to_save");
      return;
    }
    if (lora.rank() == 0) lora.set_rank(16);
    Require(lora.rank() >= 1 && lora.rank() <= 1024, "lora.rank", "1 to 1024", lora.rank());
    if (lora.alpha() == 0) lora.set_alpha(2.0 * std::max(1, lora.rank()));
    Require(lora.alpha() > 0 && std::isfinite(lora.alpha()), "lora.alpha", "over 0", lora.alpha());
    if (lora.targets().empty()) lora.add_targets("all-linear");
    Modules("lora.targets", lora.targets(), "for example q_proj, or all-linear");
    Modules("lora.modules_to_save", lora.modules_to_save(), "for example lm_head");
  }

  void Length(const v1::Training& training) {
    switch (training.length_case()) {
      case v1::Training::kSteps:
        Require(training.steps() >= 1 && training.steps() <= 10'000'000, "training.steps", "1 to 10,000,000",
                training.steps());
        break;
      case v1::Training::kEpochs:
        Require(training.epochs() > 0 && training.epochs() <= 1000, "training.epochs", "over 0 and at most 1000",
                training.epochs());
        break;
      case v1::Training::kTokens:
        Require(training.tokens() >= 8 && training.tokens() <= (int64_t{1} << 60), "training.tokens",
                "at least 8 and at most 2^60", training.tokens());
        break;
      case v1::Training::LENGTH_NOT_SET:
        Wrong("training", "needs steps (optimizer steps), epochs (passes over the data) or tokens");
    }
  }

  void Batches(v1::Training& training) {
    if (training.tokens_per_step() == 0) training.set_tokens_per_step(4096);
    Require(training.tokens_per_step() >= 8 && training.tokens_per_step() <= (int64_t{1} << 40),
            "training.tokens_per_step", "at least 8 and at most 2^40", training.tokens_per_step());
    if (training.micro_batch_tokens() == 0) {
      training.set_micro_batch_tokens(std::min<int64_t>(2048, training.tokens_per_step()));
    }
    const bool micro_batch_ok = training.micro_batch_tokens() >= 8 && training.micro_batch_tokens() <= kMiB;
    Require(micro_batch_ok || training.tokens_per_step() < 8, "training.micro_batch_tokens", "8 to 1,048,576",
            training.micro_batch_tokens());
    if (!violations.empty()) return;
    // Whole micro-batches, so that what a user reads is what happens.
    const int64_t micro_batches =
        (training.tokens_per_step() + training.micro_batch_tokens() - 1) / training.micro_batch_tokens();
    training.set_tokens_per_step(micro_batches * training.micro_batch_tokens());
    if (training.length_case() != v1::Training::kTokens) return;
    const int64_t steps = (training.tokens() + training.tokens_per_step() - 1) / training.tokens_per_step();
    Require(steps <= 10'000'000, "training.tokens", "at most 10,000,000 steps of tokens_per_step", steps);
  }

  void Limits(v1::Training& training, bool lora) {
    constexpr size_t kMaxPatternBytes = 500;
    Require(training.max_minutes() >= 0 && std::isfinite(training.max_minutes()), "training.max_minutes", "at least 0",
            training.max_minutes());
    for (int i = 0; i < training.freeze_size(); ++i) {
      if (!training.freeze(i).empty() && training.freeze(i).size() <= kMaxPatternBytes) continue;
      Wrong(absl::StrCat("training.freeze[", i, "]"), "must be a pattern of 1 to 500 bytes, like model.embed_tokens.*");
    }
    if (lora && training.freeze_size() > 0) {
      Wrong("training.freeze", "does not go together with lora, which freezes the whole model");
    }
    Require(training.label_smoothing() >= 0 && training.label_smoothing() < 1, "training.label_smoothing",
            "0 to below 1", training.label_smoothing());
    Require(training.z_loss() >= 0 && training.z_loss() <= 1, "training.z_loss", "0 to 1", training.z_loss());
  }

  void Numerics(v1::Numerics& numerics) {
    if (numerics.max_skipped_steps() == 0) numerics.set_max_skipped_steps(5);
    Require(numerics.max_skipped_steps() >= 1 && numerics.max_skipped_steps() <= 1000,
            "training.numerics.max_skipped_steps", "1 to 1000", numerics.max_skipped_steps());
    if (numerics.on_spike() == v1::Numerics::ON_SPIKE_UNSPECIFIED) numerics.set_on_spike(v1::Numerics::ON_SPIKE_WARN);
    if (numerics.spike_deviations() == 0) numerics.set_spike_deviations(6);
    Require(numerics.spike_deviations() >= 2 && std::isfinite(numerics.spike_deviations()),
            "training.numerics.spike_deviations", "at least 2", numerics.spike_deviations());
  }

  void LearningRate(v1::JobSpec& spec) {
    v1::Training& training = *spec.mutable_training();
    if (training.learning_rate() == 0) {
      training.set_learning_rate(DefaultLearningRate(spec.method(), spec.has_lora()));
    }
    Require(training.learning_rate() > 0 && training.learning_rate() <= 1, "training.learning_rate",
            "over 0 and at most 1", training.learning_rate());
    if (training.schedule() == v1::Training::SCHEDULE_UNSPECIFIED) training.set_schedule(v1::Training::SCHEDULE_COSINE);
    if (!training.has_warmup_steps() && training.length_case() == v1::Training::kSteps) {
      training.set_warmup_steps(training.steps() * 3 / 100);
    }
    if (training.schedule() == v1::Training::SCHEDULE_WSD) {
      if (training.decay_ratio() == 0) training.set_decay_ratio(0.2);
      Require(training.decay_ratio() > 0 && training.decay_ratio() <= 1, "training.decay_ratio", "over 0 and at most 1",
              training.decay_ratio());
    } else if (training.decay_ratio() != 0) {
      Wrong("training.decay_ratio", "is for the schedule WSD only");
    }
    Require(training.warmup_steps() >= 0, "training.warmup_steps", "at least 0", training.warmup_steps());
    Require(training.final_learning_rate_ratio() >= 0 && training.final_learning_rate_ratio() <= 1,
            "training.final_learning_rate_ratio", "0 to 1", training.final_learning_rate_ratio());
  }

  void AdamW(v1::AdamW& adamw) {
    if (!adamw.has_beta1()) adamw.set_beta1(0.9);
    if (!adamw.has_beta2()) adamw.set_beta2(0.999);
    if (!adamw.has_epsilon()) adamw.set_epsilon(1e-8);
    Require(adamw.beta1() >= 0 && adamw.beta1() < 1, "training.adamw.beta1", "0 to below 1", adamw.beta1());
    Require(adamw.beta2() >= 0 && adamw.beta2() < 1, "training.adamw.beta2", "0 to below 1", adamw.beta2());
    Require(adamw.epsilon() > 0 && std::isfinite(adamw.epsilon()), "training.adamw.epsilon", "over 0", adamw.epsilon());
    Require(adamw.weight_decay() >= 0 && std::isfinite(adamw.weight_decay()), "training.adamw.weight_decay",
            "at least 0", adamw.weight_decay());
  }

  void Training(v1::JobSpec& spec) {
    v1::Training& training = *spec.mutable_training();
    Length(training);
    Batches(training);
    LearningRate(spec);
    Limits(training, spec.has_lora());
    Numerics(*training.mutable_numerics());
    AdamW(*training.mutable_adamw());
    if (!training.has_max_grad_norm()) training.set_max_grad_norm(1);
    Require(training.max_grad_norm() >= 0 && std::isfinite(training.max_grad_norm()), "training.max_grad_norm",
            "at least 0", training.max_grad_norm());
    Require(training.seed() >= 0, "training.seed", "at least 0", training.seed());
    if (training.precision() == v1::Training::PRECISION_UNSPECIFIED) {
      training.set_precision(v1::Training::PRECISION_AUTO);
    }
    if (training.recompute() == v1::Training::RECOMPUTE_UNSPECIFIED) {
      training.set_recompute(v1::Training::RECOMPUTE_AUTO);
    }
  }

  void Backend(v1::JobSpec& spec) {
    if (spec.backend() == v1::JobSpec::BACKEND_UNSPECIFIED) spec.set_backend(v1::JobSpec::BACKEND_AUTO);
    if (spec.backend() == v1::JobSpec::BACKEND_HF && spec.resources().device() == v1::Resources::DEVICE_CUDA) {
      Wrong("resources.device", "is for temper's own models: transformers' are trained on CPU");
    }
  }

  void Resources(v1::Resources& resources) {
    if (resources.device() == v1::Resources::DEVICE_UNSPECIFIED) resources.set_device(v1::Resources::DEVICE_CPU);
    Require(resources.threads_per_rank() >= 0 && resources.threads_per_rank() <= 1024, "resources.threads_per_rank",
            "0 to 1024", resources.threads_per_rank());
    if (resources.ranks_per_node() == 0) resources.set_ranks_per_node(1);
    Require(resources.ranks_per_node() >= 1 && resources.ranks_per_node() <= 64, "resources.ranks_per_node", "1 to 64",
            resources.ranks_per_node());
    if (resources.nodes() == 0) resources.set_nodes(1);
    Require(resources.nodes() >= 1 && resources.nodes() <= 64, "resources.nodes", "1 to 64", resources.nodes());
  }

  void Output(v1::Output& output, bool lora) {
    if (!lora && output.adapters() != v1::Output::ADAPTERS_UNSPECIFIED) {
      Wrong("output.adapters", "is for jobs with lora only");
    } else if (lora && output.adapters() == v1::Output::ADAPTERS_UNSPECIFIED) {
      output.set_adapters(v1::Output::ADAPTERS_ADAPTER);
    }
    if (!lora && output.adapter_format() != v1::Output::ADAPTER_FORMAT_UNSPECIFIED) {
      Wrong("output.adapter_format", "is for jobs with lora only");
    } else if (lora && output.adapter_format() == v1::Output::ADAPTER_FORMAT_UNSPECIFIED) {
      output.set_adapter_format(v1::Output::ADAPTER_FORMAT_PEFT);
    }
    Uri("output.uri", output.uri(), "a directory for results");
    if (output.max_shard_size() == 0) output.set_max_shard_size(5'000'000'000);
    Require(output.max_shard_size() >= kMiB, "output.max_shard_size", "at least 1048576 (1 MiB)",
            output.max_shard_size());
  }

  void Checkpoints(v1::CheckpointPolicy& policy) {
    constexpr double kMaxMinutes = 10'000;
    if (!policy.has_every_minutes()) policy.set_every_minutes(policy.every_steps() > 0 ? 0 : 15);
    if (policy.keep_last() == 0) policy.set_keep_last(2);
    Require(policy.every_steps() >= 0 && policy.every_steps() <= 10'000'000, "checkpoints.every_steps",
            "0 to 10,000,000", policy.every_steps());
    Require(policy.every_minutes() >= 0 && policy.every_minutes() <= kMaxMinutes, "checkpoints.every_minutes",
            "0 to 10,000", policy.every_minutes());
    Require(policy.keep_last() >= 1 && policy.keep_last() <= 1000, "checkpoints.keep_last", "1 to 1000",
            policy.keep_last());
  }

  void Hang(v1::HangPolicy& policy) {
    if (!policy.has_step_minutes()) policy.set_step_minutes(10);
    if (!policy.has_other_minutes()) policy.set_other_minutes(360);
    Require(policy.step_minutes() >= 0 && policy.step_minutes() <= 10'000, "hang.step_minutes", "0 to 10,000",
            policy.step_minutes());
    Require(policy.other_minutes() >= 0 && policy.other_minutes() <= 100'000, "hang.other_minutes", "0 to 100,000",
            policy.other_minutes());
  }
};

}  // namespace

absl::StatusOr<v1::JobSpec> CompleteJobSpec(v1::JobSpec spec) {
  SpecCheck check;
  check.violations = UnknownValues(spec, "spec");
  check.Uri("model.uri", spec.model().uri(), "a directory in Hugging Face layout");
  check.DisplayName(spec);
  CompleteMethod(*spec.mutable_method(), check);
  check.Data(spec);
  if (spec.has_validation()) check.Validation(*spec.mutable_validation());
  check.Labels(spec);
  check.Name("owner", spec.owner());
  if (spec.has_lora()) check.Lora(*spec.mutable_lora());
  check.Training(spec);
  CheckMethodGoesWith(spec, check);
  check.Backend(spec);
  check.Resources(*spec.mutable_resources());
  check.Output(*spec.mutable_output(), spec.has_lora());
  check.Checkpoints(*spec.mutable_checkpoints());
  check.Hang(*spec.mutable_hang());
  if (spec.has_profile()) check.Profile(*spec.mutable_profile());
  if (!spec.resume_from().empty()) check.Uri("resume_from", spec.resume_from(), "a checkpoint's directory");
  check.Require(spec.priority() >= -1000 && spec.priority() <= 1000, "priority", "-1000 to 1000", spec.priority());
  if (!check.violations.empty()) return InvalidFields(check.violations);
  return spec;
}

absl::StatusOr<v1::JobSpec> CompleteVerifySpec(v1::JobSpec spec) {
  SpecCheck check;
  check.violations = UnknownValues(spec, "spec");
  check.Uri("model.uri", spec.model().uri(), "a directory in Hugging Face layout");
  check.DisplayName(spec);
  check.Labels(spec);
  check.Name("owner", spec.owner());
  v1::JobSpec known;
  *known.mutable_model() = spec.model();
  known.set_display_name(spec.display_name());
  known.set_owner(spec.owner());
  *known.mutable_labels() = spec.labels();
  if (!google::protobuf::util::MessageDifferencer::Equals(known, spec)) {
    check.violations.push_back({"spec", "has fields that a job with verify does not read: give the model alone"});
  }
  if (!check.violations.empty()) return InvalidFields(check.violations);
  return known;
}

absl::StatusOr<v1::VerifyOptions> CompleteVerifyOptions(v1::VerifyOptions options) {
  if (options.dtype().empty()) options.set_dtype("fp32");
  std::vector<FieldViolation> violations = UnknownValues(options, "verify");
  if (options.dtype() != "fp32" && options.dtype() != "bf16") {
    violations.push_back({"verify.dtype", "must be fp32 or bf16"});
  } else if (options.gradients() && options.dtype() != "fp32") {
    violations.push_back({"verify.gradients", "are compared in fp32 only"});
  }
  if (!violations.empty()) return InvalidFields(violations);
  return options;
}

}  // namespace temper

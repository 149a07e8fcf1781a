// SPDX-License-Identifier: Apache-2.0
#include "worker/families/config_reader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace temper {
namespace {

// Keys that do not change what the model computes when it is trained. Every entry is a promise: if one of these can
// change logits, the export is wrong and nobody is told. Sorted.
constexpr std::string_view kNeutralKeys[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "cls_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",  // each tensor says its own
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "mask_token_id",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
};

// Keys of every transformers config that must keep the value that decoders have.
struct FixedKey {
  std::string_view key;
  bool value;
};
constexpr FixedKey kFixedKeys[] = {
    {"add_cross_attention", false}, {"is_decoder", false},  {"is_encoder_decoder", false},
    {"tie_encoder_decoder", false}, {"torchscript", false}, {"use_bfloat16", false},
};

std::string Shown(const nlohmann::ordered_json& value) {
  std::string text = value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

}  // namespace

ConfigReader::ConfigReader(const nlohmann::ordered_json& config, std::string path)
    : config_(config), path_(std::move(path)) {}

std::string ConfigReader::Path(std::string_view key) const {
  std::string path = path_;
  if (!path.empty()) path += '.';
  path += key;
  return path;
}

const nlohmann::ordered_json* ConfigReader::Find(std::string_view key) {
  read_.emplace(key);
  if (!config_.is_object()) return nullptr;
  const auto found = config_.find(std::string(key));
  return found == config_.end() || found->is_null() ? nullptr : &*found;
}

bool ConfigReader::Has(std::string_view key) const {
  const auto found = config_.find(std::string(key));
  return found != config_.end() && !found->is_null();
}

void ConfigReader::AddError(std::string_view key, std::string message) {
  unsound_ = true;
  AddUnsupported(key, std::move(message));
}

void ConfigReader::AddUnsupported(std::string_view key, std::string message) {
  errors_.push_back(absl::StrCat("`", Path(key), "` ", message));
}

const nlohmann::ordered_json& ConfigReader::Raw(std::string_view key) {
  static const nlohmann::ordered_json kNull;
  const nlohmann::ordered_json* value = Find(key);
  return value != nullptr ? *value : kNull;
}

int64_t ConfigReader::Int(std::string_view key, int64_t absent) {
  const nlohmann::ordered_json* value = Find(key);
  if (value == nullptr) return absent;
  if (value->is_number_integer()) return value->get<int64_t>();
  AddError(key, absl::StrCat("must be an integer, but is ", Shown(*value)));
  return absent;
}

double ConfigReader::Double(std::string_view key, double absent) {
  const nlohmann::ordered_json* value = Find(key);
  if (value == nullptr) return absent;
  if (value->is_number()) return value->get<double>();
  AddError(key, absl::StrCat("must be a number, but is ", Shown(*value)));
  return absent;
}

bool ConfigReader::Bool(std::string_view key, bool absent) {
  const nlohmann::ordered_json* value = Find(key);
  if (value == nullptr) return absent;
  if (value->is_boolean()) return value->get<bool>();
  AddError(key, absl::StrCat("must be true or false, but is ", Shown(*value)));
  return absent;
}

std::string ConfigReader::String(std::string_view key, std::string_view absent) {
  const nlohmann::ordered_json* value = Find(key);
  if (value == nullptr) return std::string(absent);
  if (value->is_string()) return value->get<std::string>();
  AddError(key, absl::StrCat("must be a string, but is ", Shown(*value)));
  return std::string(absent);
}

int64_t ConfigReader::Size(std::string_view key, int64_t absent) {
  const int64_t value = Int(key, absent);
  if (value >= 1) return value;
  AddError(key, absl::StrCat("must be at least 1, but is ", value));
  return 1;
}

int64_t ConfigReader::SizeOrNull(std::string_view key, int64_t absent) {
  if (!IsNull(key)) return Has(key) ? Size(key) : absent;
  (void)Find(key);
  return 0;
}

double ConfigReader::DoubleOrNull(std::string_view key, double absent) {
  if (!IsNull(key)) return Double(key, absent);
  (void)Find(key);
  return 0.0;
}

bool ConfigReader::IsNull(std::string_view key) const {
  const auto found = config_.find(std::string(key));
  return found != config_.end() && found->is_null();
}

bool ConfigReader::Require(std::string_view key) {
  if (Find(key) != nullptr) return true;
  AddError(key, "is missing");
  return false;
}

int64_t ConfigReader::Int(std::string_view key) { return Require(key) ? Int(key, 0) : 0; }
double ConfigReader::Double(std::string_view key) { return Require(key) ? Double(key, 0.0) : 0.0; }
bool ConfigReader::Bool(std::string_view key) { return Require(key) ? Bool(key, false) : false; }
std::string ConfigReader::String(std::string_view key) { return Require(key) ? String(key, "") : ""; }
int64_t ConfigReader::Size(std::string_view key) { return Require(key) ? Size(key, 1) : 1; }

void ConfigReader::Expect(std::string_view key, const nlohmann::ordered_json& supported, std::string_view why) {
  const nlohmann::ordered_json* value = Find(key);
  if (value == nullptr || *value == supported) return;
  AddUnsupported(key,
                 absl::StrCat("is ", Shown(*value), "; only ", Shown(supported), " is supported: ", std::string(why)));
}

void ConfigReader::Merge(const absl::Status& status) {
  if (status.ok()) return;
  errors_.emplace_back(status.message());
  unsound_ = unsound_ || !absl::IsUnimplemented(status);
}

absl::Status ConfigReader::Finish() {
  if (!config_.is_object()) return absl::InvalidArgumentError(absl::StrCat("`", path_, "` must be a JSON object"));
  std::vector<std::string> unread;
  if (path_.empty()) {
    for (const FixedKey& fixed : kFixedKeys) Expect(fixed.key, fixed.value, "the model would be no plain decoder");
  }
  for (const auto& [key, value] : config_.items()) {
    if (read_.contains(key) || value.is_null()) continue;
    if (path_.empty() && std::binary_search(std::begin(kNeutralKeys), std::end(kNeutralKeys), std::string_view(key))) {
      continue;
    }
    unread.push_back(absl::StrCat("`", Path(key), "` (", Shown(value), ")"));
  }
  if (unread.empty() && errors_.empty()) return absl::OkStatus();
  std::vector<std::string> messages = errors_;
  if (!unread.empty()) {
    messages.push_back(absl::StrCat("temper does not know what ", absl::StrJoin(unread, ", "),
                                    unread.size() == 1 ? " does" : " do",
                                    " to the model and will not guess; remove what has no effect on it"));
  }
  const std::string message = absl::StrJoin(messages, "; ");
  return unsound_ ? absl::InvalidArgumentError(message) : absl::UnimplementedError(message);
}

}  // namespace temper

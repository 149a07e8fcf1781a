// SPDX-License-Identifier: Apache-2.0
#include "server/web/job_json.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace temper {
namespace {

void AppendNumber(std::optional<double> value, std::string& json) {
  if (!value || !std::isfinite(*value)) return void(json += "null");
  absl::StrAppendFormat(&json, "%.7g", *value);
}

template <typename Value>
void AppendColumn(std::string_view name, const v1::QueryMetricsResponse& metrics, const Value& value,
                  std::string& json) {
  absl::StrAppend(&json, json.size() > 1 ? "," : "", "\"", std::string(name), "\":[");
  for (int i = 0; i < metrics.steps_size(); ++i) {
    if (i > 0) json += ',';
    AppendNumber(value(metrics.steps(i)), json);
  }
  json += ']';
}

}  // namespace

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) return "{}";
  return json;
}

std::string JsonArray(const std::vector<std::string>& values) {
  return absl::StrCat("[", absl::StrJoin(values, ","), "]");
}

v1::Job Summary(const v1::Job& job) {
  v1::Job summary = job;
  summary.clear_preflight();
  summary.clear_verdict();
  summary.clear_data();
  summary.clear_spec();
  v1::JobSpec& spec = *summary.mutable_spec();
  spec.set_display_name(job.spec().display_name());
  spec.set_owner(job.spec().owner());
  spec.set_priority(job.spec().priority());
  spec.mutable_model()->set_uri(job.spec().model().uri());
  *spec.mutable_labels() = job.spec().labels();
  if (job.spec().has_lora()) spec.mutable_lora()->set_rank(job.spec().lora().rank());
  return summary;
}

std::string MetricsJson(const v1::QueryMetricsResponse& metrics) {
  std::string json = "{";
  using Step = v1::StepMetrics;
  const auto add = [&](std::string_view name, const auto& value) { AppendColumn(name, metrics, value, json); };
  add("step", [](const Step& step) { return static_cast<double>(step.step()); });
  add("loss", [](const Step& step) { return step.loss(); });
  add("grad_norm", [](const Step& step) { return step.grad_norm(); });
  add("learning_rate", [](const Step& step) { return step.learning_rate(); });
  add("tokens", [](const Step& step) { return static_cast<double>(step.tokens()); });
  add("seconds", [](const Step& step) { return step.seconds(); });
  add("mfu", [](const Step& step) { return step.has_mfu() ? std::optional(step.mfu()) : std::nullopt; });
  add("hfu", [](const Step& step) { return step.has_hfu() ? std::optional(step.hfu()) : std::nullopt; });
  add("padding_ratio", [](const Step& step) { return step.padding_ratio(); });
  add("peak_memory_bytes", [](const Step& step) { return static_cast<double>(step.peak_memory_bytes()); });
  add("skipped", [](const Step& step) { return step.skipped() ? 1.0 : 0.0; });
  add("data", [](const Step& step) { return step.phases().data(); });
  add("forward", [](const Step& step) { return step.phases().forward(); });
  add("backward", [](const Step& step) { return step.phases().backward(); });
  add("optimizer", [](const Step& step) { return step.phases().optimizer(); });
  add("communication", [](const Step& step) { return step.phases().communication(); });
  add("checkpoint", [](const Step& step) { return step.phases().checkpoint(); });
  add("other", [](const Step& step) { return step.phases().other(); });
  // All steps of a job have the same figures.
  const auto figures = metrics.steps().empty() ? Step().objective() : metrics.steps(0).objective();
  for (const auto& [name, value] : std::map<std::string, double>(figures.begin(), figures.end())) {
    add(name, [&name](const Step& step) -> std::optional<double> {
      const auto figure = step.objective().find(name);
      if (figure == step.objective().end()) return std::nullopt;
      return figure->second;
    });
  }
  absl::StrAppend(&json, ",\"total_steps\":", metrics.total_steps(), "}");
  return json;
}

void StepTimes::Add(int64_t step, double seconds) {
  while (!times_.empty() && times_.back().first >= step) times_.pop_back();
  times_.emplace_back(step, seconds);
}

std::string StepTimes::Json() const {
  constexpr size_t kMost = 10'000;
  const size_t stride = std::max<size_t>(1, (times_.size() + kMost - 1) / kMost);
  std::vector<int64_t> steps;
  std::vector<std::string> seconds;
  for (size_t i = times_.empty() ? 0 : (times_.size() - 1) % stride; i < times_.size(); i += stride) {
    steps.push_back(times_[i].first);
    seconds.push_back(absl::StrFormat("%.3f", times_[i].second));
  }
  return absl::StrCat("{\"step\":[", absl::StrJoin(steps, ","), "],\"seconds\":[", absl::StrJoin(seconds, ","), "]}");
}

}  // namespace temper

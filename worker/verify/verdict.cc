// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/verdict.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/family_verdicts.h"

namespace temper {
namespace {

constexpr size_t kNamedGradients = 5;  // a bug at the top puts all below it off

// Bounds are asked as !(figure <= bound), so that NaN keeps none.

void JudgeFp32(const LogitCheck& check, double max_kl, std::vector<std::string>& reasons) {
  const std::string which = absl::StrCat(check.ids, " ids, ", check.layout, ": ");
  const LogitFigures& figures = check.native;
  if (!(figures.max_kl <= max_kl)) {
    reasons.push_back(absl::StrFormat("%slargest KL is %.2e (at most %.0e)", which, figures.max_kl, max_kl));
  }
  if (!(figures.max_logit_error <= kMaxLogitError)) {
    reasons.push_back(absl::StrFormat("%slargest relative error of the logits is %.2e (at most %.0e)", which,
                                      figures.max_logit_error, kMaxLogitError));
  }
  if (figures.same_top1 != figures.positions) {
    reasons.push_back(absl::StrFormat("%sthe most likely token differs at %d of %d positions", which,
                                      figures.positions - figures.same_top1, figures.positions));
  }
}

// Few positions say little about a mean, so all documents count together.
void JudgeBf16(const Verdict& verdict, std::vector<std::string>& reasons) {
  LogitFigures native, hf;
  for (const LogitCheck& check : verdict.logits) {
    native = Merged(native, check.native);
    if (check.hf_bf16) hf = Merged(hf, *check.hf_bf16);
  }
  if (native.positions < kMinBf16Positions || hf.positions != native.positions) {
    reasons.push_back(absl::StrFormat("bf16 was compared at %d positions (%d are needed)",
                                      std::min(native.positions, hf.positions), kMinBf16Positions));
  }
  if (!(native.mean_kl() <= kMaxMeanKlRatio * hf.mean_kl())) {
    reasons.push_back(absl::StrFormat("mean KL is %.2f times that of transformers' bf16 (at most %.2f)",
                                      native.mean_kl() / hf.mean_kl(), kMaxMeanKlRatio));
  }
  if (!(native.max_kl <= kMaxPeakKlRatio * hf.max_kl)) {
    reasons.push_back(absl::StrFormat("largest KL is %.2f times that of transformers' bf16 (at most %.0f)",
                                      native.max_kl / hf.max_kl, kMaxPeakKlRatio));
  }
}

void JudgeGradients(const GradientReport& report, std::vector<std::string>& reasons) {
  size_t off = 0;
  for (const GradientError& gradient : report.errors) {
    if (gradient.error <= kMaxGradientError) continue;
    if (++off > kNamedGradients) continue;
    reasons.push_back(absl::StrFormat("the gradient of %s is off by %.2e (at most %.0e)", gradient.tensor,
                                      gradient.error, kMaxGradientError));
  }
  if (off > kNamedGradients)
    reasons.push_back(absl::StrCat("so are those of ", off - kNamedGradients, " other tensors"));
  if (!report.unmatched.empty()) {
    reasons.push_back(absl::StrCat("only one side has gradients of ", absl::StrJoin(report.unmatched, ", ")));
  }
}

nlohmann::ordered_json FiguresJson(const LogitFigures& figures) {
  return {{"positions", figures.positions},
          {"max_kl", figures.max_kl},
          {"mean_kl", figures.mean_kl()},
          {"max_logit_error", figures.max_logit_error},
          {"top1_agreement", figures.top1_agreement()}};
}

nlohmann::ordered_json LayersJson(const LayerReport& report) {
  nlohmann::ordered_json json = {{"first_departure", nullptr}, {"modules", nlohmann::ordered_json::array()}};
  if (report.departure) {
    json["first_departure"] = {{"module", report.departure->module},
                               {"what", report.departure->what},
                               {"relative_error", report.departure->error}};
  }
  for (const ModuleError& error : report.modules) {
    json["modules"].push_back(
        {{"module", error.module.name}, {"input_error", error.input}, {"output_error", error.output}});
  }
  return json;
}

nlohmann::ordered_json GradientsJson(const GradientReport& report) {
  nlohmann::ordered_json json = {{"max_error", report.errors.empty() ? 0.0 : report.errors.front().error},
                                 {"unmatched", report.unmatched},
                                 {"tensors", nlohmann::ordered_json::array()}};
  for (const GradientError& gradient : report.errors) {
    json["tensors"].push_back({{"tensor", gradient.tensor}, {"error", gradient.error}});
  }
  return json;
}

void PrintFigures(const std::string& name, const LogitFigures& figures, std::ostream& out) {
  out << absl::StreamFormat("  %-24s %9d  %8.2e  %8.2e  %8.2e  %9.3f%%\n", name, figures.positions, figures.max_kl,
                            figures.mean_kl(), figures.max_logit_error, 100 * figures.top1_agreement());
}

void PrintLayers(const LayerReport& report, std::ostream& out) {
  if (report.departure) {
    out << absl::StreamFormat("  first departure: %s, by %.2e: %s\n", report.departure->module, report.departure->error,
                              report.departure->what);
    return;
  }
  double largest = 0;
  for (const ModuleError& error : report.modules) largest = std::max({largest, error.input, error.output});
  out << absl::StreamFormat("  layers: none of %d modules departs; largest relative error %.2e\n",
                            report.modules.size(), largest);
}

}  // namespace

GradientReport CompareGradientSets(const std::map<std::string, at::Tensor>& expected,
                                   const std::map<std::string, at::Tensor>& actual) {
  GradientReport report;
  double total = 0;
  for (const auto& [name, gradient] : expected) total = std::hypot(total, Norm(gradient));
  for (const auto& [name, gradient] : expected) {
    const auto ours = actual.find(name);
    if (ours == actual.end()) {
      report.unmatched.push_back(name);
    } else {
      report.errors.push_back({name, RelativeError(gradient, ours->second, kGradientFloor * total)});
    }
  }
  for (const auto& [name, gradient] : actual) {
    if (!expected.contains(name)) report.unmatched.push_back(name);
  }
  // NaN is the worst of all.
  const auto badness = [](const GradientError& gradient) {
    return std::isnan(gradient.error) ? std::numeric_limits<double>::infinity() : gradient.error;
  };
  std::stable_sort(report.errors.begin(), report.errors.end(),
                   [&](const auto& a, const auto& b) { return badness(a) > badness(b); });
  return report;
}

std::vector<std::string> Judge(const Verdict& verdict) {
  std::vector<std::string> reasons;
  if (verdict.dtype == "bf16") {
    JudgeBf16(verdict, reasons);
  } else {
    const double max_kl = verdict.experts ? kMaxKlOfExperts : kMaxKl;
    for (const LogitCheck& check : verdict.logits) JudgeFp32(check, max_kl, reasons);
  }
  if (verdict.gradients) JudgeGradients(*verdict.gradients, reasons);
  return reasons;
}

nlohmann::ordered_json ToJson(const Verdict& verdict) {
  nlohmann::ordered_json json = {{"model", verdict.model},

                                 {"family", verdict.family},
                                 {"architecture", verdict.architecture},
                                 {"mechanisms", verdict.mechanisms},
                                 {"device", "cpu"},
                                 {"numerics_version", kNumericsVersion},
                                 {"dtype", verdict.dtype},
                                 {"passed", verdict.passed()},
                                 {"reasons", verdict.reasons},
                                 {"not_exercised", verdict.not_exercised},
                                 {"logits", nlohmann::ordered_json::array()}};
  if (verdict.layers_of.count > 0) {
    json["layers_of"] = {{"first", verdict.layers_of.begin}, {"count", verdict.layers_of.count}};
  }
  for (const LogitCheck& check : verdict.logits) {
    nlohmann::ordered_json entry = {{"ids", check.ids}, {"layout", check.layout}};
    entry.update(FiguresJson(check.native));
    if (check.hf_bf16) entry["transformers_bf16"] = FiguresJson(*check.hf_bf16);
    if (verdict.experts && check.hf_bf16) entry["routing_flips"] = check.routing_flips;
    json["logits"].push_back(std::move(entry));
  }
  if (verdict.layers) json["layers"] = LayersJson(*verdict.layers);
  if (verdict.gradients) json["gradients"] = GradientsJson(*verdict.gradients);
  return json;
}

void PrintTable(const Verdict& verdict, std::ostream& out) {
  out << absl::StreamFormat("%s (%s, %s)\n", verdict.model, verdict.architecture, verdict.dtype);
  out << "  " << absl::StrJoin(verdict.mechanisms, ", ") << "\n";
  if (verdict.layers_of.count > 0) {
    out << absl::StreamFormat("  of its layers %d to %d alone\n", verdict.layers_of.begin,
                              verdict.layers_of.begin + verdict.layers_of.count - 1);
  }
  out << absl::StreamFormat("  %-24s %9s  %8s  %8s  %8s  %10s\n", "", "positions", "max KL", "mean KL", "logits",
                            "same top-1");
  for (const LogitCheck& check : verdict.logits) {
    PrintFigures(absl::StrCat(check.ids, ", ", check.layout), check.native, out);
    if (check.hf_bf16) PrintFigures("  transformers in bf16", *check.hf_bf16, out);
    if (check.routing_flips > 0) {
      out << absl::StreamFormat("  other experts in bf16 at %d more positions, left out\n", check.routing_flips);
    }
  }
  if (verdict.layers) PrintLayers(*verdict.layers, out);
  if (verdict.gradients && !verdict.gradients->errors.empty()) {
    const GradientError& worst = verdict.gradients->errors.front();
    out << absl::StreamFormat("  gradients: %d tensors, largest error %.2e (%s)\n", verdict.gradients->errors.size(),
                              worst.error, worst.tensor);
  }
  for (const std::string& what : verdict.not_exercised) out << "  not exercised: " << what << "\n";
  for (const std::string& reason : verdict.reasons) out << "  " << reason << "\n";
  out << (verdict.passed() ? "  PASSED" : "  FAILED") << std::endl;
}

}  // namespace temper

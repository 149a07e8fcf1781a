// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/command/command_line.h"
#include "client/command/table.h"
#include "client/suggestion.h"

namespace temper::command {
namespace {

const char* PassedText(bool passed) { return passed ? "passed" : "FAILED"; }

// The worst of each figure over a family's sets of mechanisms.
v1::FamilyVerdict Worst(const v1::ModelFamily& family) {
  v1::FamilyVerdict worst;
  worst.set_passed(!family.verdicts().empty());
  for (const v1::FamilyVerdict& verdict : family.verdicts()) {
    worst.set_passed(worst.passed() && verdict.passed());
    worst.set_max_kl_fp32(std::max(worst.max_kl_fp32(), verdict.max_kl_fp32()));
    worst.set_max_gradient_error(std::max(worst.max_gradient_error(), verdict.max_gradient_error()));
    worst.set_bf16_mean_ratio(std::max(worst.bf16_mean_ratio(), verdict.bf16_mean_ratio()));
    worst.set_bf16_max_ratio(std::max(worst.bf16_max_ratio(), verdict.bf16_max_ratio()));
  }
  return worst;
}

std::vector<std::string> Figures(const v1::FamilyVerdict& verdict) {
  return {PassedText(verdict.passed()), absl::StrFormat("%.1e", verdict.max_kl_fp32()),
          absl::StrFormat("%.1e", verdict.max_gradient_error()), absl::StrFormat("%.2f", verdict.bf16_mean_ratio()),
          absl::StrFormat("%.2f", verdict.bf16_max_ratio())};
}

std::string TableOfAll(const v1::ListFamiliesResponse& list) {
  Table table({"FAMILY", "VERDICT", ">KL FP32", ">GRADIENT", ">MEAN KL BF16", ">MAX KL BF16", ">SETS", "ARCHITECTURE"});
  for (const v1::ModelFamily& family : list.families()) {
    std::vector<std::string> row = {family.name()};
    for (const std::string& figure : Figures(Worst(family))) row.push_back(figure);
    row.push_back(absl::StrCat(family.verdicts_size()));
    row.push_back(family.architecture());
    table.AddRow(row);
  }
  return table.Render(/*width=*/0);
}

// What there is beside the families.
std::string Backends(const v1::ListFamiliesResponse& list) {
  std::string text;
  for (const v1::BackendCapabilities& backend : list.backends()) {
    absl::StrAppend(&text, "\n", backend.name(), ": ", backend.models(), "\n");
    for (const std::string& lack : backend.lacks()) absl::StrAppend(&text, "  without ", lack, "\n");
  }
  return text;
}

std::string TableOfOne(const v1::ModelFamily& family) {
  Table table({"VERDICT", ">KL FP32", ">GRADIENT", ">MEAN KL BF16", ">MAX KL BF16", "MECHANISMS"});
  for (const v1::FamilyVerdict& verdict : family.verdicts()) {
    std::vector<std::string> row = Figures(verdict);
    row.push_back(absl::StrJoin(verdict.mechanisms(), ", "));
    table.AddRow(row);
  }
  return absl::StrCat(family.architecture(), "\n", table.Render(/*width=*/0));
}

ExitCode Families(const Context& context, const std::string& name) {
  auto list = context.client.ListFamilies();
  if (!list.ok()) return Fail(context, list.status());
  if (name.empty()) {
    if (context.json) {
      PrintJson(*list);
    } else {
      std::fputs((TableOfAll(*list) + Backends(*list)).c_str(), stdout);
    }
    return kExitOk;
  }
  std::vector<std::string> names;
  for (const v1::ModelFamily& family : list->families()) {
    names.push_back(family.name());
    if (family.name() != name && family.architecture() != name) continue;
    if (context.json) {
      PrintJson(family);
    } else {
      std::fputs(TableOfOne(family).c_str(), stdout);
    }
    return kExitOk;
  }
  const auto meant = ClosestName(name, names);
  return Fail(context, absl::NotFoundError(absl::StrCat("temper has no family '", name, "'",
                                                        meant ? absl::StrCat("; did you mean '", *meant, "'?") : "",
                                                        " There are ", absl::StrJoin(names, ", "))));
}

}  // namespace

void AddFamilies(CLI::App& app, CommandLine& line) {
  auto name = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("families", "List the model families that temper trains, and how exactly it computes them");
  command->fallthrough();
  command->add_option("family", *name, "Only this one, with its sets of mechanisms")->type_name("FAMILY");
  command->footer(
      "Each figure is the worst over random models of every set of mechanisms that was compared with transformers:\n"
      "KL of a position and gradient error in fp32, and KL in bf16 as a multiple of that of transformers' own bf16.\n\n"
      "Examples:\n"
      "  temper families\n"
      "  temper families gemma3_text");
  command->callback(
      [name, &line] { line.action = [name](const Context& context) { return Families(context, *name); }; });
}

}  // namespace temper::command

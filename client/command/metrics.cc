// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/command/chart.h"
#include "client/command/command_line.h"
#include "client/command/format.h"
#include "client/command/step_curves.h"
#include "client/command/table.h"

namespace temper::command {
namespace {

struct MetricsOptions {
  std::string job;
  int points = 20;
};

constexpr int kCurvePoints = 400;  // more than a terminal has dots across

// For people at a terminal, above the figures.
void PrintCharts(const Context& context, v1::QueryMetricsRequest request) {
  request.set_max_points(kCurvePoints);
  const auto answer = context.client.QueryMetrics(request);
  if (!answer.ok()) return;  // the figures are there
  StepCurves curves;
  for (const v1::StepMetrics& step : answer->steps()) curves.Add(step);
  const std::vector<std::string> charts = DrawCharts(curves.all(), context.terminal.Width());
  if (!charts.empty()) std::printf("%s\n\n", absl::StrJoin(charts, "\n").c_str());
}

ExitCode Metrics(const Context& context, const MetricsOptions& options) {
  v1::QueryMetricsRequest request;
  request.set_parent(ToJobName(options.job));
  request.set_max_points(options.points);
  const auto answer = context.client.QueryMetrics(request);
  if (!answer.ok()) return Fail(context, answer.status());
  if (context.json) {
    PrintJson(*answer);
    return kExitOk;
  }
  if (answer->steps().empty()) {
    std::printf("%s has taken no step yet\n", request.parent().c_str());
    return kExitOk;
  }
  if (context.terminal.interactive) PrintCharts(context, request);
  const auto of_method = MethodFiguresOf(answer->steps(0));
  std::vector<std::string> columns = {">STEP", ">LOSS", ">GRAD NORM", ">LR", ">TOKENS/S", ">MFU", ">TOKENS"};
  if (of_method) {
    columns.insert(columns.begin() + 2, {absl::AsciiStrToUpper(absl::StrCat(">", of_method->name)),
                                         absl::AsciiStrToUpper(absl::StrCat(">", of_method->share_name))});
  }
  Table table(columns);
  for (const v1::StepMetrics& step : answer->steps()) {
    std::vector<std::string> row = {absl::StrCat(step.step()),
                                    HumanLoss(step.loss()),
                                    absl::StrFormat("%.3g", step.grad_norm()),
                                    absl::StrFormat("%.2e", step.learning_rate()),
                                    HumanRate(TokensPerSecond(step)),
                                    step.has_mfu() ? HumanPercent(step.mfu()) : "",
                                    absl::StrCat(step.total_tokens())};
    if (of_method) {
      const MethodFigures figures = MethodFiguresOf(step).value_or(MethodFigures());
      row.insert(row.begin() + 2, {absl::StrFormat("%.3g", figures.value), HumanPercent(figures.share)});
    }
    table.AddRow(row);
  }
  std::fputs(table.Render(context.terminal.interactive ? context.terminal.Width() : 0).c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddMetrics(CLI::App& app, CommandLine& line) {
  auto options = std::make_shared<MetricsOptions>();
  CLI::App* command =
      app.add_subcommand("metrics", "Show the figures of a job's steps, thinned; in a terminal with their curves");
  command->fallthrough();
  command->add_option("job", options->job, "The job: ID or jobs/ID")->required();
  command->add_option("--points", options->points, "At most so many steps")
      ->check(CLI::Range(2, 10'000))
      ->capture_default_str();
  command->footer(
      "Examples:\n"
      "  temper metrics smollm2-k3f9x2\n"
      "  temper metrics smollm2-k3f9x2 --points 1000 --output json | jq '.steps[].loss'");
  command->callback(
      [options, &line] { line.action = [options](const Context& context) { return Metrics(context, *options); }; });
}

}  // namespace temper::command

// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/command/chart.h"
#include "client/command/command_line.h"
#include "client/command/format.h"
#include "client/command/table.h"
#include "client/command/training_progress.h"

namespace temper::command {
namespace {

struct MetricsOptions {
  std::string job;
  int points = 20;
};

constexpr int kCurvePoints = 400;  // more than a terminal has dots across
constexpr char kMargins[] = "rewards/margins", kAccuracies[] = "rewards/accuracies";

// Whether the job learns from pairs, and so has figures of them.
bool HasPairs(const v1::QueryMetricsResponse& metrics) {
  return !metrics.steps().empty() && ObjectiveFigure(metrics.steps(0), kMargins).has_value();
}

std::vector<Curve> Curves(const v1::QueryMetricsResponse& metrics) {
  std::vector<Curve> curves = {
      {.title = "Loss"}, {.title = "Gradient norm"}, {.title = "Learning rate"}, {.title = "Tokens/s"}};
  const bool pairs = HasPairs(metrics);
  if (pairs) curves.insert(curves.end(), {{.title = "Reward margin"}, {.title = "Accuracy"}});
  for (const v1::StepMetrics& step : metrics.steps()) {
    const double rate = step.seconds() > 0 ? static_cast<double>(step.tokens()) / step.seconds() : 0;
    std::vector<double> values = {step.loss(), step.grad_norm(), step.learning_rate(), rate};
    if (pairs) {
      for (const char* name : {kMargins, kAccuracies}) values.push_back(ObjectiveFigure(step, name).value_or(0));
    }
    for (size_t i = 0; i < curves.size(); ++i) {
      curves[i].x.push_back(static_cast<double>(step.step()));
      curves[i].y.push_back(values[i]);
    }
  }
  return curves;
}

// For people at a terminal, above the figures.
void PrintCharts(const Context& context, v1::QueryMetricsRequest request) {
  request.set_max_points(kCurvePoints);
  const auto answer = context.client.QueryMetrics(request);
  if (!answer.ok()) return;  // the figures are there
  const std::string charts = DrawCharts(Curves(*answer), context.terminal.Width());
  if (!charts.empty()) std::printf("%s\n", charts.c_str());
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
  const bool pairs = HasPairs(*answer);
  std::vector<std::string> columns = {">STEP", ">LOSS", ">GRAD NORM", ">LR", ">TOKENS/S", ">MFU", ">TOKENS"};
  if (pairs) columns.insert(columns.begin() + 2, {">MARGIN", ">ACCURACY"});
  Table table(columns);
  for (const v1::StepMetrics& step : answer->steps()) {
    const double rate = step.seconds() > 0 ? static_cast<double>(step.tokens()) / step.seconds() : 0;
    std::vector<std::string> row = {absl::StrCat(step.step()),
                                    HumanLoss(step.loss()),
                                    absl::StrFormat("%.3g", step.grad_norm()),
                                    absl::StrFormat("%.2e", step.learning_rate()),
                                    HumanRate(rate),
                                    step.has_mfu() ? HumanPercent(step.mfu()) : "",
                                    absl::StrCat(step.total_tokens())};
    if (pairs) {
      row.insert(row.begin() + 2, {absl::StrFormat("%.3g", ObjectiveFigure(step, kMargins).value_or(0)),
                                   HumanPercent(ObjectiveFigure(step, kAccuracies).value_or(0))});
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

// SPDX-License-Identifier: Apache-2.0
#include "client/command/preflight_view.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/command/format.h"
#include "common/counted.h"

namespace temper::command {
namespace {

// Line ends stay; whatever else a terminal might obey does not.
std::string PrintableLines(const std::string& text) {
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  return absl::StrJoin(lines, "\n",
                       [](std::string* out, const std::string& line) { absl::StrAppend(out, Printable(line)); });
}

std::string SampleText(const v1::PreflightSample& sample, const Terminal& terminal) {
  std::string text;
  for (const v1::PreflightPiece& piece : sample.pieces()) {
    const std::string shown = PrintableLines(piece.text());
    if (terminal.color) {
      absl::StrAppend(&text, terminal.Paint(piece.scored() ? Color::kGreen : Color::kDim, shown));
    } else {
      absl::StrAppend(&text, piece.scored() ? absl::StrCat("⟦", shown, "⟧") : shown);
    }
  }
  return text;
}

std::string MemoryParts(const v1::MemoryEstimate& memory) {
  std::string text =
      absl::StrCat("weights ", HumanBytes(memory.weights()), ", gradients ", HumanBytes(memory.gradients()),
                   ", optimizer ", HumanBytes(memory.optimizer()), ", activations ", HumanBytes(memory.activations()),
                   ", data ", HumanBytes(memory.data()), ", process ", HumanBytes(memory.process()));
  if (memory.snapshot() > 0) absl::StrAppend(&text, ", a checkpoint's snapshot ", HumanBytes(memory.snapshot()));
  return text;
}

std::string StepsText(const v1::PreflightReport& report) {
  if (report.estimated_seconds() == 0) return absl::StrCat(report.total_steps());
  return absl::StrCat(report.total_steps(), ", about ", HumanDuration(absl::Seconds(report.estimated_seconds())),
                      " at half of this machine's peak");
}

}  // namespace

std::string MemoryText(const v1::MemoryEstimate& memory) {
  const std::string needed = absl::StrCat("about ", HumanBytes(memory.total()), " of memory");
  if (memory.available() == 0) return needed;
  return absl::StrCat(needed, ", ", HumanBytes(memory.available()), " are there");
}

std::string PreflightText(const v1::PreflightReport& report, const Terminal& terminal) {
  std::string out;
  int number = 0;
  for (const v1::PreflightSample& sample : report.samples()) {
    if (sample.part() != "rejected") ++number;
    const std::string part = sample.part().empty() ? "" : absl::StrCat(", ", Printable(sample.part()));
    absl::StrAppend(&out, "Sample ", number, part, ": ", Counted(sample.tokens(), "token"), ", ",
                    sample.scored_tokens(), " learned\n", SampleText(sample, terminal), "\n\n");
  }
  const v1::DataStatistics& data = report.data();
  const double tokens = static_cast<double>(std::max<int64_t>(1, data.tokens()));
  const auto line = [&out](const std::string& label, const std::string& value) {
    absl::StrAppend(&out, label, std::string(10 - label.size(), ' '), value, "\n");
  };
  line("Samples",
       absl::StrCat(data.samples_kept(), " of ", data.samples_read(), ", ", data.samples_truncated(), " cut off, ",
                    data.samples_overlong(), " too long, ", data.samples_refused(), " with nothing to learn"));
  line("Tokens", absl::StrFormat("%d, %s of them learned", data.tokens(),
                                 HumanPercent(static_cast<double>(data.scored_tokens()) / tokens)));
  if (data.validation_samples() > 0) line("Held out", Counted(data.validation_samples(), "sample"));
  line("Rows", absl::StrCat(data.rows_per_epoch(), " a pass over the data, ", HumanPercent(data.padding_ratio()),
                            " of their room left"));
  line("Steps", StepsText(report));
  if (data.data_share() < 1) {
    line("",
         absl::StrFormat("(figures of the first %.2g %% of the data; steps are estimated)", 100 * data.data_share()));
  }
  line("Memory", MemoryText(report.memory()));
  line("", MemoryParts(report.memory()));
  line("Backend", absl::StrCat(report.backend(), ": ", Printable(report.backend_reason())));
  for (const v1::PreflightCheck& check : report.checks()) {
    const bool warning = check.severity() >= v1::LOG_SEVERITY_WARNING;
    const std::string mark = warning ? terminal.Paint(Color::kYellow, "warning") : terminal.Paint(Color::kGreen, "ok");
    absl::StrAppend(&out, mark, std::string(warning ? 3 : 8, ' '), Printable(check.text()), "\n");
  }
  return out;
}

}  // namespace temper::command

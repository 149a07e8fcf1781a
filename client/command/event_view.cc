// SPDX-License-Identifier: Apache-2.0
#include "client/command/event_view.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "client/command/chart.h"
#include "client/command/format.h"
#include "client/command/preflight_view.h"
#include "common/counted.h"

namespace temper::command {
namespace {

// Of the screen, for what was said before; the charts have the rest.
constexpr int kOtherLines = 8;
// Who begins to watch late gets thousands of steps at once.
constexpr std::chrono::milliseconds kRedraw{100};

std::string RankText(int rank) {
  if (rank == -1) return "node";
  if (rank == -2) return "server";
  return absl::StrCat("rank ", rank);
}

Color StateColor(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_SUCCEEDED:
      return Color::kGreen;
    case v1::JOB_STATE_FAILED:
      return Color::kRed;
    case v1::JOB_STATE_CANCELLED:
      return Color::kYellow;
    default:
      return Color::kDim;
  }
}

}  // namespace

std::string LogText(const v1::JobEvent& event, const Terminal& terminal) {
  const v1::LogLine& log = event.log();
  const std::string time = absl::FormatTime("%H:%M:%S", ToTime(event.time()), absl::LocalTimeZone());
  const char* letter = "I";
  if (log.severity() == v1::LOG_SEVERITY_WARNING) letter = "W";
  if (log.severity() == v1::LOG_SEVERITY_ERROR) letter = "E";
  const std::string text = absl::StrCat(time, " ", letter, " ", RankText(log.rank()), ": ", Printable(log.text()));
  if (log.severity() == v1::LOG_SEVERITY_ERROR) return terminal.Paint(Color::kRed, text);
  if (log.severity() == v1::LOG_SEVERITY_WARNING) return terminal.Paint(Color::kYellow, text);
  return text;
}

void EventView::Show(const v1::JobEvent& event) {
  switch (event.event_case()) {
    case v1::JobEvent::kState:
      return ShowState(event.state());
    case v1::JobEvent::kPhase:
      return ShowPhase(event.phase());
    case v1::JobEvent::kStep:
      return ShowStep(event.step());
    case v1::JobEvent::kExport:
      return ShowExport(event.export_());
    case v1::JobEvent::kCheckpoint:
      return ShowCheckpoint(event.checkpoint());
    case v1::JobEvent::kPreflight:
      return ShowPreflight(event.preflight());
    case v1::JobEvent::kValidation:
      return ShowValidation(event.validation());
    case v1::JobEvent::kResumption:
      return ShowResumption(event.resumption());
    case v1::JobEvent::kVerdict:
      return ShowVerdict(event.verdict());
    case v1::JobEvent::kCheckpointRemoved:
    case v1::JobEvent::kBackend:
    case v1::JobEvent::kData:  // their lines are in the log
      return;
    case v1::JobEvent::kLog:
      // Routine lines are for `temper logs`.
      if (event.log().severity() >= v1::LOG_SEVERITY_WARNING) status_.Print(LogText(event, terminal_));
      return;
    case v1::JobEvent::EVENT_NOT_SET:
      return;  // of a newer server
  }
}

void EventView::ShowState(const v1::StateChange& change) {
  std::string text = terminal_.Paint(StateColor(change.state()), StateName(change.state()));
  if (change.cause() != v1::FAILURE_CAUSE_UNSPECIFIED) absl::StrAppend(&text, " (", CauseName(change.cause()), ")");
  if (!change.reason().empty()) absl::StrAppend(&text, ": ", Printable(change.reason()));
  if (!change.requested_by().empty()) absl::StrAppend(&text, " (by ", Printable(change.requested_by()), ")");
  if (change.state() != v1::JOB_STATE_RUNNING) KeepPicture();
  status_.Print(text);
}

void EventView::ShowPhase(const v1::PhaseChange& change) {
  if (change.total_steps() > 0) progress_.SetTotalSteps(change.total_steps());
  const std::string text = PhaseText(change.phase());
  if (text.empty()) return;
  if (!terminal_.interactive) return status_.Print(text);
  if (change.phase() == v1::PHASE_EXPORTING) KeepPicture();
  status_.Draw({absl::StrCat(text, " …")});
}

void EventView::ShowStep(const v1::StepMetrics& step) {
  progress_.Add(step);
  if (!terminal_.interactive) return status_.Print(StepText(step));
  const auto now = std::chrono::steady_clock::now();
  if (shows_picture_ && now - drawn_ < kRedraw) return;
  status_.Draw(Picture());
  shows_picture_ = true;
  drawn_ = now;
}

std::vector<std::string> EventView::Picture() const {
  std::vector<std::string> lines =
      DrawCharts(progress_.curves().all(), terminal_.Width() - 1, terminal_.Height() - kOtherLines);
  lines.push_back(progress_.Line());
  return lines;
}

void EventView::KeepPicture() {
  status_.Clear();
  if (!shows_picture_) return;
  for (const std::string& line : Picture()) status_.Print(line);
  shows_picture_ = false;
}

void EventView::ShowExport(const v1::ExportCommitted& committed) {
  status_.Clear();
  status_.Print(absl::StrCat("exported ", Counted(committed.files(), "file"), ", ", HumanBytes(committed.bytes()), ": ",
                             Printable(committed.uri())));
}

// On a terminal the line goes above the bar.
void EventView::ShowCheckpoint(const v1::CheckpointCommitted& checkpoint) {
  status_.Print(absl::StrCat("checkpoint at step ", checkpoint.step(), ": ", HumanBytes(checkpoint.bytes()),
                             ", training paused ", HumanDuration(absl::Seconds(checkpoint.pause_seconds()))));
}

// What `temper preflight` shows in full.
void EventView::ShowPreflight(const v1::PreflightReport& report) {
  status_.Print(absl::StrCat("preflight: ", Counted(report.data().samples_kept(), "sample"), ", ",
                             Counted(report.data().tokens(), "token"), ", ", Counted(report.total_steps(), "step"),
                             ", ", MemoryText(report.memory())));
  for (const v1::PreflightCheck& check : report.checks()) {
    if (check.severity() < v1::LOG_SEVERITY_WARNING) continue;
    status_.Print(terminal_.Paint(Color::kYellow, absl::StrCat("preflight: ", Printable(check.text()))));
  }
}

void EventView::ShowVerdict(const v1::ModelVerdict& verdict) {
  status_.Print(verdict.passed() ? "the model computes what transformers' own does"
                                 : terminal_.Paint(Color::kRed, "the model departs from transformers' own:"));
  for (const std::string& reason : verdict.reasons()) status_.Print(absl::StrCat("  ", Printable(reason)));
}

void EventView::ShowValidation(const v1::ValidationResult& validation) {
  status_.Print(absl::StrCat("validation at step ", validation.step(), ": loss ", HumanLoss(validation.loss()),
                             validation.best() ? ", the best so far" : ""));
}

void EventView::ShowResumption(const v1::Resumption& resumption) {
  std::string text = resumption.step() > 0 ? absl::StrCat("going on after step ", resumption.step())
                                           : std::string("beginning from the start again");
  if (resumption.lost_steps() > 0)
    absl::StrAppend(&text, ", taking ", Counted(resumption.lost_steps(), "step"), " again");
  status_.Print(text);
}

void EventView::Note(const std::string& text) {
  status_.Clear();
  std::fflush(stdout);
  std::fprintf(stderr, "temper: %s\n", text.c_str());
}

}  // namespace temper::command

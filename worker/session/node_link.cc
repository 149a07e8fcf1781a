// SPDX-License-Identifier: Apache-2.0
#include "worker/session/node_link.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/session/frame.h"
#include "worker/session/report.h"
#include "worker/session/stack_traces.h"

namespace temper {

NodeLink::NodeLink(int fd, std::function<std::string()> collectives)
    : fd_(fd), collectives_(std::move(collectives)), reader_([this] { Read(); }) {}

NodeLink::~NodeLink() {
  // Only the reading half: it wakes the reader and leaves what was written on its way.
  shutdown(fd_, SHUT_RD);
  reader_.join();
  close(fd_);
}

absl::StatusOr<v1::RankCommand> NodeLink::WaitForAssignment() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return assignment_.has_value() || stop_.requested(); });
  if (stop_.requested()) return absl::CancelledError(stop_reason_);
  return *assignment_;
}

void NodeLink::Send(const v1::RankReport& report) {
  absl::Status status;
  {
    std::lock_guard lock(write_mutex_);
    status = WriteMessage(fd_, report);
  }
  if (!status.ok()) Stop(absl::StrCat("the node is gone: ", status.message()));
}

std::string NodeLink::stop_reason() const {
  std::lock_guard lock(mutex_);
  return stop_reason_;
}

void NodeLink::Read() {
  FrameDecoder decoder;
  char bytes[4096];
  for (;;) {
    const ssize_t count = recv(fd_, bytes, sizeof bytes, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Stop(absl::StrCat("the node is gone: ", strerror(errno)));
    if (count == 0) return Stop("the node is gone");
    decoder.Append({bytes, static_cast<size_t>(count)});
    for (std::string payload;;) {
      const absl::StatusOr<bool> whole = decoder.Next(&payload);
      if (!whole.ok()) return Stop(absl::StrCat("the node sent nonsense: ", whole.status().message()));
      if (!*whole) break;
      Handle(payload);
    }
  }
}

void NodeLink::Handle(const std::string& payload) {
  v1::RankCommand command;
  if (!command.ParseFromString(payload)) return Stop("the node sent a command that can't be parsed");
  switch (command.command_case()) {
    case v1::RankCommand::kAssignment: {
      std::lock_guard lock(mutex_);
      assignment_ = std::move(command);
      changed_.notify_all();
      break;
    }
    case v1::RankCommand::kStop:
      Stop(command.stop().reason(), command.stop().checkpoint());
      break;
    case v1::RankCommand::kDumpStacks:
      DumpStacks();
      break;
    case v1::RankCommand::kStepHeard:
      heard_step_ = command.step_heard().step();
      break;
    case v1::RankCommand::COMMAND_NOT_SET:
      break;  // of a newer node; nothing that this version could do
  }
}

void NodeLink::DumpStacks() {
  for (const std::string& text : StackTraces()) Send(LogReport(LogSeverity::kWarning, text));
  const std::string collectives = collectives_ ? collectives_() : "";
  if (!collectives.empty()) Send(LogReport(LogSeverity::kWarning, collectives));
  v1::RankReport done;
  done.mutable_stacks_dumped();
  Send(done);
}

void NodeLink::Stop(const std::string& reason, bool checkpoint) {
  std::lock_guard lock(mutex_);
  if (stop_reason_.empty()) stop_reason_ = reason.empty() ? "stopped on request" : reason;
  stop_.Request(checkpoint);
  changed_.notify_all();
}

}  // namespace temper

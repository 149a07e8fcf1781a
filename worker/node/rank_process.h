// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "temper/v1/worker_service.pb.h"
#include "worker/node/line_splitter.h"
#include "worker/session/frame.h"

namespace temper {

// How a rank's process ended.
struct RankExit {
  int wait_status = 0;  // as waitpid(2) gives it
  // The last lines that it wrote to stderr, oldest first.
  std::deque<std::string> last_errors;
};

// A running temper-rank: a child process with a socket to it, whose output is read line by line.
class RankProcess {
 public:
  // Called on the process's own thread, in the order in which things happened; on_exit is the last.
  struct Events {
    std::function<void(v1::RankReport)> on_report;
    std::function<void(v1::LogSeverity, const std::string& line)> on_line;
    std::function<void(const RankExit&)> on_exit;
  };

  // Starts `binary` with TEMPER_RANK_FD in its environment (and this process's worker token removed from it), and with
  // the descriptor `inherited` (−1: none), whose number it keeps. The child is killed when the *thread* that called
  // Start ends (PR_SET_PDEATHSIG), so call it from the main thread.
  //
  // The status says why the binary could not be started.
  static absl::StatusOr<std::unique_ptr<RankProcess>> Start(const std::string& binary, Events events,
                                                            int inherited = -1);

  // Kills the process if it still runs, and waits for on_exit.
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  // A command to a rank that is gone is dropped. One thread at a time.
  void Send(const v1::RankCommand& command);
  void Kill();
  pid_t pid() const { return pid_; }

 private:
  RankProcess(pid_t pid, int pidfd, int socket, int out, int err, Events events);
  void Follow();
  void ReadMessages(std::string_view bytes);

  const pid_t pid_;
  const int pidfd_;
  const int socket_;
  const int out_;
  const int err_;
  const Events events_;
  // Used by thread_ alone:
  FrameDecoder decoder_;
  bool talks_nonsense_ = false;
  LineSplitter out_lines_;
  LineSplitter err_lines_;
  RankExit exit_;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/channel.h"
#include "temper/v1/worker_service.pb.h"
#include "worker/node/event_queue.h"
#include "worker/node/exit_record.h"
#include "worker/node/hang_watch.h"
#include "worker/node/meeting_listener.h"
#include "worker/node/rank_process.h"
#include "worker/node/server_link.h"

namespace temper {

struct NodeOptions {
  // Path of temper-rank.
  std::string rank_binary;
  // Where the ranks of other nodes reach this one's: a name or an address.
  std::string address = "127.0.0.1";
  // A rank that was told to stop, or has said that it is done, and still runs after so long is killed.
  std::chrono::milliseconds stop_grace{10'000};
  // The same for a rank that is to commit a checkpoint first, when the platform wants the node gone. A stop by the
  // server has no such limit: the server sets its own.
  std::chrono::milliseconds checkpoint_grace{25'000};
  // The ranks of a gang that hangs have so long to tell what they are doing.
  std::chrono::milliseconds stacks_grace{5'000};
};

// One node of a gang, for one epoch: asks the server what to do, starts the ranks (once all nodes are there), relays
// what they report, passes stops on, and explains ranks that died before they could speak.
class Node {
 public:
  Node(NodeOptions options, std::shared_ptr<grpc::Channel> server, v1::Hello hello, ServerLinkOptions link_options);

  // Lives the node's whole life. Call it once, from the main thread (see RankProcess::Start). No rank runs any more
  // when it returns.
  ExitRecord Run();

  // Any thread: the platform wants this process gone.
  void Terminate(const std::string& reason);

 private:
  // What happens to a node.
  struct Assigned {
    v1::Assignment assignment;
  };
  struct AllNodesThere {
    v1::Meeting meeting;
  };
  struct StopAsked {
    v1::Stop stop;
  };
  struct TerminateAsked {
    std::string reason;
  };
  struct ServerLost {
    absl::Status status;
  };
  struct StepHeard {
    int64_t step;
  };
  struct Drained {};  // looked at by Done(); it only has to wake Run()
  struct RankSaidEnd {
    size_t index;
    v1::RankEnd end;
  };
  struct RankExited {
    size_t index;
    RankExit exit;
  };
  struct RankMadeProgress {
    HangWatch::Sign sign;
  };
  struct RankDumpedStacks {
    size_t index;
  };
  using Event = std::variant<Assigned, AllNodesThere, StopAsked, TerminateAsked, ServerLost, StepHeard, Drained,
                             RankSaidEnd, RankExited, RankMadeProgress, RankDumpedStacks>;
  using TimePoint = std::chrono::steady_clock::time_point;

  struct Rank {
    int32_t rank = 0;
    std::unique_ptr<RankProcess> process;  // null: could not be started
    bool running = false;
    bool killed = false;  // by the node
    bool held = false;    // its end is not reported yet
    bool dumped_stacks = false;
    TimePoint kill_at = TimePoint::max();
    std::optional<v1::RankEnd> end;  // as the rank said it, and as it was reported once the process is gone
  };

  ServerLink::Events LinkEvents();
  RankProcess::Events RankEvents(size_t index);

  void On(const Assigned& event);
  void On(const AllNodesThere& event);
  void On(const StopAsked& event);
  void On(const TerminateAsked& event);
  void On(const ServerLost& event);
  void On(const StepHeard& event);
  void On(const Drained&) {}
  void On(const RankSaidEnd& event);
  void On(const RankExited& event);
  void On(const RankMadeProgress& event);
  void On(const RankDumpedStacks& event) { ranks_[event.index].dumped_stacks = true; }

  // Whether the report of a rank is for the node itself, which has taken it then.
  bool TakeForNode(size_t index, const v1::RankReport& report);
  // `meeting`: where the ranks of the gang find each other, if there are several.
  void StartRanks(const v1::Meeting& meeting);
  absl::Status StartRank(size_t index, const v1::Meeting& meeting);
  bool HasSeveralRanks() const { return assignment_ && assignment_->world_size() > 1; }
  bool HasOtherNodes() const { return assignment_ && assignment_->world_size() > assignment_->ranks_per_node(); }
  // How a rank ended whose process is gone.
  v1::RankEnd EndOf(const Rank& rank, const RankExit& exit) const;
  // Whether it ended, by its own account, for want of another rank: that one's end tells more, and is reported first.
  bool MissedAnother(const Rank& rank) const;
  // The server takes the first end for the gang's: once a rank has failed, the ends of those who miss it, or were
  // stopped for it, are held until all are gone.
  void ReportHeldEnds();
  // A gang that lacks a rank is lost: the others need no time for anything.
  void StopOthers(const std::string& reason);
  // Tells the ranks; `grace` is how long they have. A stop that keeps nothing overrules one that checkpoints first.
  void StopRanks(const v1::Stop& stop, std::chrono::milliseconds grace);
  void KillOverdueRanks();
  // A gang that hangs says what it is doing, and is killed: it can't be asked to end.
  void LookForHang();
  void AskForStacks();
  void EndHungGang();
  void Log(int32_t rank, v1::LogSeverity severity, const std::string& text);
  void ReportEnd(Rank& rank, v1::RankEnd end);
  bool RanksRunning() const;
  // Whether all that run have told what they are doing.
  bool StacksDumped() const;
  bool Done() const;
  TimePoint NextDeadline() const;
  ExitRecord Record() const;

  const NodeOptions options_;
  const std::shared_ptr<grpc::Channel> server_;
  v1::Hello hello_;  // complete once Run() has begun
  const ServerLinkOptions link_options_;

  // Filled by the threads of the link and the ranks; all that follows belongs to the thread in Run().
  EventQueue<Event> events_;
  std::optional<int64_t> oom_kills_before_;
  std::optional<MeetingListener> listener_;  // node 0's, until rank 0 has it
  std::optional<v1::Assignment> assignment_;
  std::optional<std::string> stop_reason_;
  std::optional<v1::RankEnd> failure_;  // of the first rank that is reported to have failed
  bool stop_keeps_nothing_ = false;
  bool gang_lost_ = false;                   // the stop is for a rank that failed, here or elsewhere
  bool terminated_ = false;                  // the stop came from the platform, not from the server
  TimePoint give_up_at_ = TimePoint::max();  // the server need not know more after this
  std::optional<absl::Status> lost_;
  std::optional<HangWatch> watch_;   // where rank 0 is
  std::optional<std::string> hang_;  // what shows it
  TimePoint stacks_due_ = TimePoint::max();
  std::unique_ptr<ServerLink> link_;
  std::vector<Rank> ranks_;  // none before they are started; after link_: ranks report to it until they are gone
};

}  // namespace temper

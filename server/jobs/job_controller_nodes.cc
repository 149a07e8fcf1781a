// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/counted.h"
#include "common/digest.h"
#include "common/fault_point.h"
#include "common/rpc/status.h"
#include "common/secret.h"
#include "server/jobs/job_controller.h"
#include "server/jobs/job_name.h"

namespace temper {
namespace {

absl::Status EpochOver(const std::string& job, int32_t epoch) {
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat("epoch ", epoch, " of ", job, " is over: stop everything and exit")),
      "EPOCH_OVER", {{"job", job}, {"epoch", absl::StrCat(epoch)}});
}

// How the gang ended, if `report` ends it. A gang has ended when one of its ranks has failed, or rank 0 is done: the
// others return when it no longer needs them.
std::optional<GangEnding> EndingOf(const v1::RankReport& report) {
  if (!report.has_end()) return std::nullopt;
  const v1::RankEnd& end = report.end();
  // Nobody here told it to stop, or the job would be STOPPING and not listen.
  if (end.stopped()) {
    const std::string message = end.message().empty() ? "the gang was told to stop" : end.message();
    return GangEnding{v1::FAILURE_CAUSE_PREEMPTED, message};
  }
  if (report.rank() != 0 && end.cause() == v1::FAILURE_CAUSE_UNSPECIFIED) return std::nullopt;
  const bool known = v1::FailureCause_IsValid(end.cause());
  // A rank that says so itself has lost another.
  const bool misses_another = end.cause() == v1::FAILURE_CAUSE_RANK_LOST && end.exit_status() == 0;
  return GangEnding{known ? end.cause() : v1::FAILURE_CAUSE_INTERNAL, end.message(), misses_another};
}

}  // namespace

JobController::AttachedNode JobController::FindAttached(int64_t attachment) {
  for (auto& [id, live] : live_) {
    for (size_t node = 0; node < live.nodes.size(); ++node) {
      if (attachment != 0 && live.nodes[node].attachment == attachment) return {&live, static_cast<int32_t>(node)};
    }
  }
  return {};
}

absl::StatusOr<NodeAttachment> JobController::AttachNode(const v1::Hello& hello, SendCommand send) {
  const absl::Status wrong_token =
      absl::UnauthenticatedError("the token is not good for this job and epoch, or there is no such job and epoch");
  const auto id = ParseJobName(hello.job(), "job");
  if (!id.ok()) return id.status();
  std::lock_guard lock(mutex_);
  auto epoch = store_.GetEpoch(*id, hello.epoch());
  if (absl::IsNotFound(epoch.status())) return wrong_token;
  if (!epoch.ok()) return epoch.status();
  if (!EqualSecrets(Sha256Hex(hello.token()), epoch->token_hash)) return wrong_token;

  // Not EPOCH_OVER: the next server adopts this gang.
  if (shutting_down_) return absl::UnavailableError("the server shuts down");
  LiveJob* live = FindLive(*id);
  if (live == nullptr || live->record.life.epoch != hello.epoch() || !HasGang(live->record.life.state)) {
    return EpochOver(hello.job(), hello.epoch());
  }
  const int32_t nodes = NodesOf(live->record);
  if (hello.node() < 0 || hello.node() >= nodes) {
    return InvalidFields({{"node", absl::StrCat("is ", hello.node(), ", but the gang has ", Counted(nodes, "node"))}});
  }
  const auto index = static_cast<size_t>(hello.node());
  // They are kept one a line.
  if (hello.incarnation().empty() || absl::StrContains(hello.incarnation(), '\n')) {
    return InvalidFields({{"incarnation", "is required, on one line"}});
  }
  if (hello.node() == 0 && nodes > 1 && !hello.has_meeting()) {
    return InvalidFields({{"meeting", "is required of node 0 of a gang of several nodes"}});
  }
  const std::string& known = live->epoch.incarnations[index];
  if (!known.empty() && known != hello.incarnation()) {
    return WithReason(
        absl::FailedPreconditionError("another incarnation of this node is attached: stop everything and exit"),
        "INCARNATION_REFUSED");
  }

  JobDraft draft = Draft(*live);
  EpochRecord row = live->epoch;
  row.incarnations[index] = hello.incarnation();
  if (row.AllHeard()) draft.Advance(job_event::NodesAttached{}, options_.retry);
  draft.update().epoch = row;
  if (absl::Status status = Commit(*live, std::move(draft)); !status.ok()) return status;
  live->epoch.incarnations[index] = hello.incarnation();
  LiveNode& node = live->nodes[index];
  node = {.attachment = ++last_attachment_, .send = std::move(send), .last_heard = clock_.Monotonic()};
  if (hello.node() == 0) live->meeting = hello.meeting();
  TellToMeet(*live);
  if (live->record.life.state == v1::JOB_STATE_STOPPING && !live->said_end) TellToStop(*live);

  NodeAttachment attachment;
  attachment.id = node.attachment;
  attachment.assignment.set_job(hello.job());
  *attachment.assignment.mutable_spec() = live->record.job.spec();
  attachment.assignment.set_epoch(hello.epoch());
  *attachment.assignment.mutable_create_time() = live->record.job.create_time();
  if (live->record.job.has_verify()) {
    *attachment.assignment.mutable_verify() = live->record.job.verify();
  } else {
    attachment.assignment.set_preflight(live->record.life.preflight);
  }
  attachment.assignment.set_trust_remote_code(options_.trust_remote_code);
  attachment.assignment.set_world_size(RanksOf(live->record));
  attachment.assignment.set_ranks_per_node(RanksPerNode(live->record));
  for (const std::string& uri : live->epoch.resume_from) attachment.assignment.add_checkpoints(uri);
  attachment.assignment.set_current_step(live->record.job.current_step());
  return attachment;
}

void JobController::Heartbeat(int64_t attachment) {
  std::lock_guard lock(mutex_);
  if (const AttachedNode from = FindAttached(attachment); from.live != nullptr) {
    from.node().last_heard = clock_.Monotonic();
  }
}

void JobController::DetachNode(int64_t attachment) {
  std::lock_guard lock(mutex_);
  const AttachedNode from = FindAttached(attachment);
  if (from.live == nullptr) return;
  from.node().attachment = 0;
  from.node().send = nullptr;
}

absl::StatusOr<JobController::TakenReports> JobController::Take(const NodeReports& node) {
  const AttachedNode from = FindAttached(node.attachment);
  LiveJob* const live = from.live;
  if (live == nullptr) {
    return absl::FailedPreconditionError("the stream was replaced by another, or its epoch is over");
  }
  from.node().last_heard = clock_.Monotonic();

  TakenReports taken{.live = live, .draft = Draft(*live), .said_end = live->said_end};
  std::map<int32_t, int64_t> positions = live->positions;
  const int32_t ranks = RanksPerNode(live->record);
  for (const v1::RankReport& report : node.reports) {
    const int32_t rank = report.rank();
    const bool of_node = rank == -1 - from.index || (rank >= 0 && rank / ranks == from.index);
    if (!of_node) {
      return InvalidFields({{"report.rank", absl::StrCat("is ", rank, ", but node ", from.index, " has ",
                                                         Counted(ranks, "rank"), " from ", from.index * ranks)}});
    }
    int64_t& position = positions[rank];
    if (report.sequence() > position + 1 || report.sequence() < 1) {
      return InvalidFields({{"report.sequence", absl::StrCat("is ", report.sequence(), " after ", position,
                                                             " for rank ", rank, ": reports are missing")}});
    }
    taken.reported[rank] = position;
    if (report.sequence() <= position) continue;  // sent again
    position = report.sequence();
    taken.reported[rank] = position;
    taken.draft.Take(report);
    if (auto ending = EndingOf(report)) {
      taken.draft.Advance(job_event::GangEnded{*std::move(ending)}, options_.retry);
      taken.said_end = true;
    }
  }
  const int32_t epoch = live->record.life.epoch;
  for (const auto& [rank, position] : taken.reported) {
    if (position > live->positions[rank]) taken.draft.update().positions.push_back({epoch, rank, position});
  }
  return taken;
}

absl::StatusOr<std::vector<v1::Ack>> JobController::HandleReports(int64_t attachment,
                                                                  const std::vector<v1::RankReport>& reports) {
  return std::move(HandleReports(std::vector<NodeReports>{{attachment, reports}}).front());
}

std::vector<absl::StatusOr<std::vector<v1::Ack>>> JobController::HandleReports(const std::vector<NodeReports>& nodes) {
  std::lock_guard lock(mutex_);
  std::vector<absl::StatusOr<std::vector<v1::Ack>>> answers;
  std::vector<absl::StatusOr<TakenReports>> all;
  std::set<const LiveJob*> jobs;
  for (const NodeReports& node : nodes) {
    // What one node of a gang has reported must be kept before another's is looked at.
    const LiveJob* const live = FindAttached(node.attachment).live;
    if (live != nullptr && !jobs.insert(live).second) {
      Keep(std::exchange(all, {}), answers);
      jobs = {live};
    }
    all.push_back(Take(node));
  }
  Keep(std::move(all), answers);
  return answers;
}

void JobController::Keep(std::vector<absl::StatusOr<TakenReports>> all,
                         std::vector<absl::StatusOr<std::vector<v1::Ack>>>& answers) {
  const bool kept = KeepTogether(all);
  for (absl::StatusOr<TakenReports>& taken : all) {
    absl::Status status = taken.status();
    // One that can't be kept is no reason for the others to be repeated.
    if (status.ok() && !kept) status = Commit(*taken->live, std::move(taken->draft));
    if (!status.ok()) {
      answers.push_back(std::move(status));
      continue;
    }
    taken->live->said_end = taken->said_end;
    std::vector<v1::Ack>& acks = *answers.emplace_back(std::vector<v1::Ack>());
    for (const auto& [rank, position] : taken->reported) {
      v1::Ack& ack = acks.emplace_back();
      ack.set_rank(rank);
      ack.set_sequence(position);
    }
  }
}

bool JobController::KeepTogether(std::vector<absl::StatusOr<TakenReports>>& all) {
  std::vector<TakenReports*> changed;
  std::vector<const JobUpdate*> updates;
  for (absl::StatusOr<TakenReports>& taken : all) {
    if (!taken.ok() || !Changes(*taken->live, taken->draft.update())) continue;
    changed.push_back(&*taken);
    updates.push_back(&taken->draft.update());
  }
  if (updates.empty()) return true;
  FaultPoint("server.commit.before");
  if (!store_.Update(updates).ok()) return false;
  FaultPoint("server.commit.after");
  for (TakenReports* taken : changed) Adopt(*taken->live, taken->draft.update());
  return true;
}

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "server/jobs/job_draft.h"
#include "server/jobs/job_machine.h"
#include "server/jobs/job_store.h"
#include "server/jobs/scheduler.h"
#include "server/jobs/upload_store.h"
#include "server/launch/launcher.h"
#include "temper/v1/training_service.pb.h"
#include "temper/v1/worker_service.pb.h"

namespace temper {

struct JobControllerOptions {
  // Run directories are made below it: RUNS_DIR/{job}/e{epoch}.
  std::filesystem::path runs_dir;
  DeviceSlots slots{{"cpu", 1}};
  // Preflights at a time; they take no slot. 0: jobs are queued without one, unless they are nothing else.
  int max_preflights = 2;
  // Gangs may run code that lies beside a model.
  bool trust_remote_code = false;
  RetryPolicy retry;
  // A gang that was launched has so long to attach, with all its nodes.
  std::chrono::seconds attach_limit{120};
  // An attached node may be silent for so long (it sends a heartbeat every 5 s).
  std::chrono::seconds silence_limit{120};
  // A gang that has reported its end has so long to exit by itself.
  std::chrono::seconds exit_limit{15};
  // A gang that is paused has so long to finish its step and commit a checkpoint before it is stopped the hard way.
  std::chrono::seconds pause_limit{600};
  // Jobs that have not ended, at a time; one more is refused.
  size_t max_unfinished = 10'000;
  // Log events that are kept per job; 5 % more for warnings and errors.
  int64_t max_log_events = 20'000;
  // A job that ended so long ago is deleted. 0: never.
  std::chrono::hours keep_ended{0};
  // What no job reads any more is removed from it. Must outlive the controller; null: there are no uploads.
  UploadStore* uploads = nullptr;
};

// Some events of a job, in order.
struct EventPage {
  std::vector<v1::JobEvent> events;
  // The job has ended, and nothing comes after `events`.
  bool complete = false;
};

// A node's stream, as the controller sees it.
struct NodeAttachment {
  // Names the stream in later calls.
  int64_t id = 0;
  // The first answer.
  v1::Assignment assignment;
};

// What a node has reported over its stream.
struct NodeReports {
  int64_t attachment = 0;
  std::vector<v1::RankReport> reports;
};

// Owns every job: the only writer of job state. What clients and nodes say comes in here; what shall be is worked out
// by job_machine and scheduler, kept by the store, and made true by Reconcile(). Any thread.
//
// An event is on the disk before anyone is told: watchers, listeners, acknowledgements.
//
// Errors carry google.rpc details (common/rpc/status.h). Any call may fail with UNAVAILABLE when the store does.
class JobController {
 public:
  // Called for every event once it is kept, with the job as it is then, in order per job, on the thread that caused it
  // and under the controller's lock: be quick, and don't call the controller.
  using Listener = std::function<void(const v1::Job&, const v1::JobEvent&)>;
  // Passes a command on to a node: Stop or Meeting. The same rules.
  using SendCommand = std::function<void(const v1::AttachResponse&)>;

  // All must outlive the controller. Takes the launcher's OnExit.
  JobController(JobStore& store, Launcher& launcher, const Clock& clock, JobControllerOptions options);
  // Shutdown, without waiting for gangs.
  ~JobController();
  JobController(const JobController&) = delete;
  JobController& operator=(const JobController&) = delete;

  // Before Recover() and Start().
  void AddListener(Listener listener);

  // Takes up what the store knows. Gangs of an earlier server are adopted: they go on, and come back with what they had
  // to report in the meantime. Once, before anything else.
  absl::Status Recover();

  // From now on jobs are launched; their workers call `server_address` (HOST:PORT). Runs Reconcile() on a thread of its
  // own whenever something happens.
  void Start(std::string server_address);

  // Ends clients' waits and launches nothing any more. Gangs go on, for the next Recover() to adopt.
  void Shutdown();

  // After Shutdown: stops all gangs, which commit a checkpoint (their jobs are queued again, free of charge), and waits
  // for them to be gone, at most `limit`. What is left then is adopted by the next Recover().
  void StopGangs(std::chrono::milliseconds limit);

  // One round of making true what shall be: launches, stops, limits. For tests that have no thread; the server uses
  // Start().
  void Reconcile(const std::string& server_address);

  // --- for clients ---

  // Checks the request, fills in defaults and queues the job. The contract is TrainingService.CreateJob's.
  // With validate_only, returns what would be created (without a name if none was asked for) and creates nothing.
  //
  // `caller`, here and below: the identity that asks for it, which the job's event then names; empty: nobody knows.
  absl::StatusOr<v1::Job> Create(v1::CreateJobRequest request, const std::string& caller = "");

  // NOT_FOUND, INVALID_ARGUMENT (not a name).
  absl::StatusOr<v1::Job> Get(const std::string& name) const;

  // INVALID_ARGUMENT: page size, token, state.
  absl::StatusOr<v1::ListJobsResponse> List(const v1::ListJobsRequest& request) const;

  // FAILED_PRECONDITION: has succeeded or failed.
  absl::StatusOr<v1::Job> Cancel(const std::string& name, const std::string& caller = "");
  // FAILED_PRECONDITION: has ended, or is being cancelled.
  absl::StatusOr<v1::Job> Pause(const std::string& name, const std::string& caller = "");
  absl::StatusOr<v1::Job> Resume(const std::string& name, const std::string& caller = "");
  // FAILED_PRECONDITION: has not ended.
  absl::Status Delete(const std::string& name);

  // INVALID_ARGUMENT: a range or a number of points that is none.
  absl::StatusOr<v1::QueryMetricsResponse> Metrics(const v1::QueryMetricsRequest& request) const;

  // Newest first.
  absl::StatusOr<std::vector<v1::Checkpoint>> Checkpoints(const std::string& name) const;

  // Events after `after_sequence`, at most `limit`. INVALID_ARGUMENT: after_sequence below 0. OUT_OF_RANGE: over the
  // job's last one.
  absl::StatusOr<EventPage> Events(const std::string& name, int64_t after_sequence, int limit) const;

  // Blocks until the job has an event after `after_sequence`, or has ended (true), or `timeout` is over (false).
  // UNAVAILABLE: the server shuts down.
  absl::StatusOr<bool> WaitForEvents(const std::string& name, int64_t after_sequence,
                                     std::chrono::milliseconds timeout) const;

  // --- for nodes ---

  // A node says Hello. `send` is used until DetachNode, or until the same incarnation attaches anew (its former stream
  // is dead, even if nobody has noticed); it may be called before AttachNode returns.
  //
  // UNAUTHENTICATED: no such job and epoch, or wrong token. FAILED_PRECONDITION: the epoch is over, or another
  // incarnation was attached. INVALID_ARGUMENT: no such node in the gang.
  absl::StatusOr<NodeAttachment> AttachNode(const v1::Hello& hello, SendCommand send);

  // The node lives.
  void Heartbeat(int64_t attachment);

  // Keeps reports and returns what may be acknowledged, one Ack per rank. What was kept before is acknowledged again.
  //
  // FAILED_PRECONDITION: the attachment was replaced, or the epoch is over. INVALID_ARGUMENT: a report is missing
  // before one of these, or one is malformed or of another node's rank.
  absl::StatusOr<std::vector<v1::Ack>> HandleReports(int64_t attachment, const std::vector<v1::RankReport>& reports);
  // The same for several nodes (each at most once), in one commit: one answer for each, in their order.
  std::vector<absl::StatusOr<std::vector<v1::Ack>>> HandleReports(const std::vector<NodeReports>& nodes);

  // The stream is over. Any number of times.
  void DetachNode(int64_t attachment);

 private:
  // A node of a gang, as it is connected.
  struct LiveNode {
    // Its stream; 0 when there is none.
    int64_t attachment = 0;
    SendCommand send;
    std::optional<v1::Stop> stop_sent;
    bool told_to_meet = false;
    MonotonicTime last_heard;
  };

  // A job that has not ended.
  struct LiveJob {
    JobRecord record;
    // Why it is not started, as the scheduler sees it now. QUEUED only.
    int queue_position = 0;  // as v1::Job has it
    std::string waiting_reason;
    // The present gang; meaningless without one.
    EpochRecord epoch;
    bool launching = false;                // Launch() is being called, or is about to be
    bool launched = false;                 // the launcher has it in its charge
    bool adopted = false;                  // from an earlier server
    bool said_end = false;                 // its ending is its own word
    bool stop_asked = false;               // of the launcher
    MonotonicTime since;                   // when it entered its state
    std::map<int32_t, int64_t> positions;  // newest report that is kept, by rank
    std::vector<LiveNode> nodes;           // by index
    std::optional<v1::Meeting> meeting;    // as node 0 has told this server

    bool AnyAttached() const;
  };

  // A stream's node, or null.
  struct AttachedNode {
    LiveJob* live = nullptr;
    int32_t index = 0;

    LiveNode& node() const { return live->nodes[static_cast<size_t>(index)]; }
  };

  // What wakes the loop. Shared with the launcher's callback, which may come while the controller goes. Its lock is the
  // innermost.
  struct Inbox {
    std::mutex mutex;
    std::condition_variable changed;
    // Guarded by mutex:
    bool awake = false;
    bool stop_loop = false;
    std::deque<GangExit> exits;
    std::deque<NodeLoss> node_losses;

    void Wake();
    void Add(GangExit exit);
    void Add(NodeLoss exit);
  };

  // All with mutex_ held:
  LiveJob* FindLive(const std::string& id);
  const LiveJob* FindLive(const std::string& id) const;
  AttachedNode FindAttached(int64_t attachment);
  // What a node's reports make of its job.
  struct TakenReports {
    LiveJob* live = nullptr;
    JobDraft draft;
    std::map<int32_t, int64_t> reported;  // newest report of each rank that is known after it
    bool said_end = false;
  };
  absl::StatusOr<TakenReports> Take(const NodeReports& node);
  // In one commit. False: nothing was kept, for one of them can't be.
  bool KeepTogether(std::vector<absl::StatusOr<TakenReports>>& all);
  // … or one by one, if that can't be. Adds an answer for each.
  void Keep(std::vector<absl::StatusOr<TakenReports>> all, std::vector<absl::StatusOr<std::vector<v1::Ack>>>& answers);
  // Of the present gang, or the next one. One that only looks is one rank.
  static int32_t NodesOf(const JobRecord& record);
  static int32_t RanksPerNode(const JobRecord& record);
  static int32_t RanksOf(const JobRecord& record) { return NodesOf(record) * RanksPerNode(record); }
  // The job as it is now, with the reason why it waits.
  v1::Job View(v1::Job job) const;
  JobDraft Draft(const LiveJob& live) const;
  // Keeps the draft and tells everybody. A job that has ended is no longer live after it.
  absl::Status Commit(LiveJob& live, JobDraft draft);
  // The rest of it, once the store has the update.
  void Adopt(LiveJob& live, JobUpdate& update);
  static bool Changes(const LiveJob& live, const JobUpdate& update);
  absl::Status Happen(LiveJob& live, const JobMachineEvent& event, const std::string& caller = "");
  void Tell(const v1::Job& job, const std::vector<v1::JobEvent>& events);
  // Tells the nodes, unless they know.
  void TellToStop(LiveJob& live);
  // Tells the nodes of a gang of several, once all are there.
  void TellToMeet(LiveJob& live);
  // Cancel, Pause and Resume: lets it happen, if the job is live, and returns the job as it is then.
  absl::StatusOr<v1::Job> Request(const std::string& name, const JobMachineEvent& event, const std::string& caller);
  void SetWaitingReason(LiveJob& live, std::string reason);

  // The parts of Reconcile(), with mutex_ held.
  void TakeNodeLosses(std::deque<NodeLoss> exits);
  void TakeExits(std::deque<GangExit> exits);
  void EnforceLimits();
  void StopGangs(std::vector<std::function<void()>>& launcher_calls);
  std::vector<GangSpec> StartJobs(const std::string& server_address);
  // … and without it, for storage and launcher may take their time.
  void TidyUp(const GangExit& exit);
  absl::Status FindCheckpoints(const GangKey& key);
  void Launch(const GangSpec& spec);
  // Once an hour.
  void DeleteOldJobs();
  // Every ten minutes.
  void CollectUploads();
  // By digest.
  absl::StatusOr<std::set<std::string>> UploadsInUse() const;

  // The parts of Create(), with mutex_ held. FindRepeated: the job that an earlier call with this request_id created.
  absl::StatusOr<std::optional<v1::Job>> FindRepeated(const v1::CreateJobRequest& request,
                                                      const v1::JobSpec& spec) const;
  // `digest`: of what the request's request_id stands for.
  absl::StatusOr<v1::Job> CreateNew(const v1::CreateJobRequest& request, std::string digest, v1::JobSpec spec,
                                    const std::string& caller);
  void Loop();
  bool AnyGang() const;

  JobStore& store_;
  Launcher& launcher_;
  const Clock& clock_;
  const JobControllerOptions options_;
  std::vector<Listener> listeners_;

  // One round at a time, and the only place that calls the launcher.
  std::mutex reconcile_mutex_;
  std::optional<MonotonicTime> deleted_old_jobs_;   // guarded by it
  std::optional<MonotonicTime> collected_uploads_;  // guarded by it

  mutable std::mutex mutex_;
  mutable std::condition_variable events_changed_;
  // Guarded by mutex_:
  std::map<std::string, LiveJob> live_;  // by id
  int64_t last_attachment_ = 0;
  bool shutting_down_ = false;

  const std::shared_ptr<Inbox> inbox_;

  std::string server_address_;
  std::thread loop_;
};

}  // namespace temper

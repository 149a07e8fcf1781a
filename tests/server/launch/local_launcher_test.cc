// SPDX-License-Identifier: Apache-2.0
#include "server/launch/local_launcher.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <map>
#include <thread>

#include "nlohmann/json.hpp"
#include "server/launch/worker_process.h"
#include "tests/common/scratch_directory.h"
#include "tests/server/launch/launcher_conformance.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Another process has to do something; all we can see is its result.
void Await(const std::function<bool()>& condition) {
  for (int i = 0; i < 6000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_TRUE(condition());
}

// Workers are shell scripts. Each writes RUN_DIR/running when it does what it is for.
class LocalHarness final : public LauncherHarness {
 public:
  ~LocalHarness() override {
    // A failed test must not leave processes behind.
    for (const ProcessInfo& process : AllProcesses()) {
      if (BelongsHere(process.pid)) kill(process.pid, SIGKILL);
    }
  }

  std::unique_ptr<Launcher> NewLauncher(WorkerBehaviour behaviour) override {
    const std::map<WorkerBehaviour, std::string> scripts = {
        {WorkerBehaviour::kRunUntilStopped, "trap 'exit 3' TERM\n" + kRunning + "sleep 1000 & wait\n"},
        {WorkerBehaviour::kIgnoreStop, "trap '' TERM\n" + kRunning + "sleep 1000\n"},
        {WorkerBehaviour::kExitAtOnce, "echo 'cannot open the device' >&2\nexit 7\n"},
        {WorkerBehaviour::kLeaveRecord,
         "echo '{\"exit_status\": 1, \"cause\": \"STORAGE\", \"message\": \"disk full\"}' > $TEMPER_RUN_DIR/exit.json\n"
         "exit 1\n"},
        {WorkerBehaviour::kLoseNode1,
         "[[ $* == *'--node 1'* ]] && exit 7\n"
         "trap 'echo {} > $TEMPER_RUN_DIR/exit.json; exit 3' TERM\n" +
             kRunning + "sleep 1000 & wait\n"},
        {WorkerBehaviour::kLeaveDescendant,
         "(trap '' TERM; sleep 1000) &\n(trap '' TERM; exec setsid sleep 1000) &\n" + kRunning + "exit 0\n"},
    };
    return WithScript(scripts.at(behaviour));
  }

  std::unique_ptr<LocalLauncher> WithScript(const std::string& script) {
    const fs::path binary = scratch_.path() / ("worker" + std::to_string(++scripts_));
    std::ofstream(binary) << "#!/bin/bash\n" << script;
    chmod(binary.c_str(), 0755);
    return WithBinary(binary);
  }

  std::unique_ptr<LocalLauncher> WithBinary(const fs::path& binary) {
    LocalLauncherOptions options;
    options.gpus = {"0", "1", "GPU-5f"};
    options.worker_binary = binary;
    options.stop_grace = std::chrono::milliseconds(200);
    return std::make_unique<LocalLauncher>(options);
  }

  std::unique_ptr<Launcher> NewBrokenLauncher() override { return WithBinary(scratch_.path() / "no-such-worker"); }

  fs::path RunDir(const GangKey& key) override {
    return scratch_.path() / "runs" / key.job_id / ("e" + std::to_string(key.epoch));
  }

  bool IsRunning(const GangKey& key) override {
    for (const ProcessInfo& process : AllProcesses()) {
      for (int32_t node = 0; node < 3 && !process.zombie; ++node) {
        if (HasEnvironmentEntry(process.pid, NodeMark(NodeDirectory(RunDir(key), node)))) return true;
      }
    }
    return false;
  }

  void AwaitRunning(const GangKey& key) override {
    Await([&] { return fs::exists(RunDir(key) / "running"); });
  }

 private:
  bool BelongsHere(pid_t pid) {
    return ReadFile("/proc/" + std::to_string(pid) + "/environ").find("TEMPER_RUN_DIR=" + scratch_.path().string()) !=
           std::string::npos;
  }

  const std::string kRunning = "touch $TEMPER_RUN_DIR/running\n";
  ScratchDirectory scratch_;
  int scripts_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Local, LauncherConformance,
                         testing::Values(LauncherHarnessFactory([] { return std::make_unique<LocalHarness>(); })));

class LocalLauncherTest : public testing::Test {
 protected:
  // Runs a worker to its end.
  GangExit RunScript(const std::string& script) {
    const auto launcher = harness.WithScript(script);
    exits.Follow(*launcher);
    const auto handle = launcher->Launch(Spec());
    EXPECT_TRUE(handle.ok()) << handle.status();
    return exits.Next();
  }
  GangSpec Spec() {
    GangSpec spec;
    spec.key = {"my-job", 3};
    spec.server_address = "127.0.0.1:8470";
    spec.token = "secret";
    spec.run_dir = harness.RunDir(spec.key);
    return spec;
  }
  fs::path run_dir() { return Spec().run_dir; }

  LocalHarness harness;
  ExitLog exits;
};

TEST(ReadProcess, OneWhoseFirstThreadAloneIsOver_IsNoZombie) {
  const pid_t pid = fork();
  if (pid == 0) {
    std::thread([] { pause(); }).detach();
    syscall(SYS_exit, 0);  // of this thread alone
  }
  Await([&] { return ReadFile("/proc/" + std::to_string(pid) + "/stat").find(") Z ") != std::string::npos; });
  EXPECT_FALSE(ReadProcess(pid)->zombie);
  kill(pid, SIGKILL);
  Await([&] { return ReadProcess(pid)->zombie; });
  EXPECT_EQ(waitpid(pid, nullptr, 0), pid);
}

TEST_F(LocalLauncherTest, Worker_Started_HasItsArgumentsAndTheTokenInTheEnvironmentOnly) {
  setenv("TEMPER_TOKEN", "of-a-client", 1);
  RunScript("echo \"$@\"\necho token=$TEMPER_WORKER_TOKEN client=$TEMPER_TOKEN\n");
  unsetenv("TEMPER_TOKEN");
  EXPECT_EQ(ReadFile(run_dir() / "worker.log"),
            "--server 127.0.0.1:8470 --job jobs/my-job --epoch 3 --node 0 --run-dir " + run_dir().string() +
                "\ntoken=secret client=\n");
}

TEST_F(LocalLauncherTest, Worker_Started_InheritsNoDescriptorSignalOrSession) {
  // As another library in the server might leave them.
  const int leaked = open("/dev/null", O_RDONLY);
  ASSERT_GE(leaked, 3);
  signal(SIGUSR1, SIG_IGN);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  RunScript(
      "ls /proc/self/fd\ngrep SigBlk /proc/self/status\n"
      // Without 32 and 33, which belong to the C library.
      "echo ignored $((0x$(grep SigIgn /proc/self/status | cut -f2) & ~0x180000000))\n"
      "[ $(cut -d' ' -f6 /proc/$$/stat) = $$ ] && echo leader\n");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  signal(SIGUSR1, SIG_DFL);
  close(leaked);
  // 3 is the directory that ls reads.
  EXPECT_EQ(ReadFile(run_dir() / "worker.log"), "0\n1\n2\n3\nSigBlk:\t0000000000000000\nignored 0\nleader\n");
}

TEST_F(LocalLauncherTest, Exit_WithoutRecord_TellsStatusAndLastWords) {
  const GangExit exit = RunScript("echo 'cannot open the device' >&2\nexit 7\n");
  EXPECT_EQ(exit.message,
            "temper-worker exited with status 7 without having reported an end: cannot open the device (its output is "
            "in " +
                (run_dir() / "worker.log").string() + ")");
}

TEST_F(LocalLauncherTest, Exit_BySignal_TellsTheSignal) {
  EXPECT_THAT(RunScript("kill -SEGV $$\n").message,
              testing::StartsWith("temper-worker was killed by signal 11 (Segmentation fault)"));
}

TEST_F(LocalLauncherTest, Exit_HalfARecordAndBytesThatAreNoText_IsRankLostInPlainText) {
  const GangExit exit =
      RunScript("echo -n '{\"cause\": \"STOR' > $TEMPER_RUN_DIR/exit.json\nprintf 'a\\xff\\n'\nexit 1\n");
  EXPECT_EQ(exit.cause, FailureCause::kRankLost);
  EXPECT_THAT(exit.message, testing::HasSubstr("status 1 without having reported an end: a\\xff ("));
}

TEST_F(LocalLauncherTest, Exit_RecordWithoutCause_IsRankLostWithItsMessage) {
  const GangExit exit = RunScript(
      "echo '{\"exit_status\": 4, \"cause\": \"\", \"message\": \"refused\"}' > $TEMPER_RUN_DIR/exit.json\nexit 4\n");
  EXPECT_EQ(exit.cause, FailureCause::kRankLost);
  EXPECT_THAT(exit.message, testing::HasSubstr("exited with status 4 without having reported an end: refused"));
}

TEST_F(LocalLauncherTest, Exit_Child_IsWaitedFor) {
  RunScript("exit 0\n");
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a zombie was left";
}

TEST_F(LocalLauncherTest, Exit_OfSeveralNodes_IsTheOneThatTellsMost) {
  // Node 0 has only missed another; node 1 was killed; node 2 knows why.
  const auto launcher = harness.WithScript(
      "record() { echo \"{\\\"cause\\\": \\\"$1\\\", \\\"message\\\": \\\"$2\\\"}\" > $TEMPER_RUN_DIR/exit.json; }\n"
      "case \"$*\" in\n"
      "*'--node 0'*) record RANK_LOST 'rank 0 has lost rank 2';;\n"
      "*'--node 1'*) kill -9 $$;;\n"
      "*) record OUT_OF_MEMORY 'rank 2 ran out of memory';;\n"
      "esac\n");
  exits.Follow(*launcher);
  GangSpec spec = Spec();
  spec.nodes = 3;
  ASSERT_TRUE(launcher->Launch(spec).ok());
  const GangExit exit = exits.Next();
  EXPECT_EQ(exit.cause, FailureCause::kOutOfMemory);
  EXPECT_EQ(exit.message, "node 2: rank 2 ran out of memory");
  EXPECT_TRUE(fs::exists(run_dir() / "node-1" / "worker.log"));
}

TEST_F(LocalLauncherTest, Gpus_OfWorkersThatRun_AreNobodyElses) {
  setenv("CUDA_VISIBLE_DEVICES", "of the server", 1);
  const auto launcher = harness.WithScript(
      "trap 'exit 3' TERM\necho $CUDA_VISIBLE_DEVICES > $TEMPER_RUN_DIR/running\nsleep 1000 & wait\n");
  exits.Follow(*launcher);
  const auto spec = [&](const char* job, int32_t nodes, int32_t gpus) {
    GangSpec spec = Spec();
    spec.key.job_id = job;
    spec.run_dir = harness.RunDir(spec.key);
    spec.nodes = nodes;
    spec.gpus_per_node = gpus;
    return spec;
  };
  const auto seen = [&](const GangSpec& gang, int32_t node) {
    const fs::path file = NodeDirectory(gang.run_dir, node) / "running";
    Await([&] { return ReadFile(file).ends_with("\n"); });
    return ReadFile(file);
  };
  const GangSpec two_nodes = spec("two-nodes", 2, 1), one = spec("one", 1, 1), none = spec("none", 1, 0);
  ASSERT_TRUE(launcher->Launch(two_nodes).ok());
  EXPECT_EQ(seen(two_nodes, 0), "0\n");
  EXPECT_EQ(seen(two_nodes, 1), "1\n");
  ASSERT_TRUE(launcher->Launch(none).ok());
  EXPECT_EQ(seen(none, 0), "\n");

  const absl::Status too_many = launcher->Launch(spec("too-many", 1, 2)).status();
  EXPECT_EQ(too_many.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(too_many.message(), "needs 2 GPUs for a node, but 1 of 3 are free");

  // Known again to who takes charge after a restart of the server, even without the handle.
  const auto next = harness.WithScript("echo $CUDA_VISIBLE_DEVICES > $TEMPER_RUN_DIR/running\nsleep 1000\n");
  ExitLog exits_of_next;
  exits_of_next.Follow(*next);
  ASSERT_TRUE(next->Recover(two_nodes.key, 2, two_nodes.run_dir, "").ok());
  ASSERT_TRUE(next->Launch(one).ok());
  EXPECT_EQ(seen(one, 0), "GPU-5f\n");

  // Free again.
  launcher->Stop(two_nodes.key);
  EXPECT_EQ(exits.Next().key, two_nodes.key);
  const GangSpec later = spec("later", 1, 2);
  ASSERT_TRUE(launcher->Launch(later).ok());
  EXPECT_EQ(seen(later, 0), "0,1\n");
  unsetenv("CUDA_VISIBLE_DEVICES");
}

TEST_F(LocalLauncherTest, Launch_OneOfSeveralCannotStart_NothingRuns) {
  const auto launcher = harness.WithScript("trap '' TERM\nsleep 1000\n");
  exits.Follow(*launcher);
  GangSpec spec = Spec();
  spec.nodes = 2;
  fs::create_directories(run_dir() / "node-1");
  std::ofstream(run_dir() / "node-1" / "worker.log") << "of another";
  EXPECT_EQ(launcher->Launch(spec).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_FALSE(harness.IsRunning(spec.key));
}

TEST_F(LocalLauncherTest, Launch_BinaryMissing_NamesIt) {
  const auto launcher = harness.WithBinary("/nowhere/temper-worker");
  const auto handle = launcher->Launch(Spec());
  EXPECT_EQ(handle.status().message(), "can't start /nowhere/temper-worker: No such file or directory");
}

TEST_F(LocalLauncherTest, Launch_RunDirCannotBeMade_NamesIt) {
  fs::create_directories(run_dir().parent_path());
  std::ofstream(run_dir()) << "a file";
  const auto launcher = harness.WithScript("exit 0\n");
  EXPECT_THAT(std::string(launcher->Launch(Spec()).status().message()), testing::HasSubstr(run_dir().string()));
}

// A pid that was given to another process since must not cost that process its life.
TEST_F(LocalLauncherTest, Recover_PidBelongsToAnotherProcessNow_LeavesThatAlone) {
  const pid_t stranger = fork();
  if (stranger == 0) {
    pause();
    _exit(0);
  }
  const auto info = ReadProcess(stranger);
  ASSERT_TRUE(info.has_value());
  const auto pid = static_cast<uint64_t>(stranger);
  const std::vector<nlohmann::json> handles = {
      {{"pid", pid}, {"start_time", info->start_time - 1}, {"boot_id", BootId()}},
      {{"pid", pid}, {"start_time", info->start_time}, {"boot_id", "another boot"}},
  };
  for (const nlohmann::json& handle : handles) {
    const auto launcher = harness.WithScript("");
    exits.Follow(*launcher);
    ASSERT_TRUE(launcher->Recover(Spec().key, 1, run_dir(), handle.dump()).ok());
    launcher->Kill(Spec().key);
    exits.Next();
    EXPECT_EQ(waitpid(stranger, nullptr, WNOHANG), 0) << "the stranger was killed";
  }
  kill(stranger, SIGKILL);
  waitpid(stranger, nullptr, 0);
}

}  // namespace
}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#include "worker/node/rank_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "spdlog/spdlog.h"
#include "worker/session/spin_count.h"

// glibc 2.36 forgot to declare these for C++.
extern "C" {
#include <sys/pidfd.h>
}

extern char** environ;

namespace temper {
namespace {

constexpr size_t kKeptErrorLines = 20;

// A pair of descriptors that closes what nobody took.
struct Pair {
  int ends[2] = {-1, -1};
  ~Pair() {
    for (int end : ends) {
      if (end >= 0) close(end);
    }
  }
  int Take(int i) { return std::exchange(ends[i], -1); }
};

absl::Status SystemError(absl::string_view what) {
  return absl::InternalError(absl::StrCat(what, ": ", strerror(errno)));
}

std::vector<std::string> RankEnvironment(int fd) {
  std::vector<std::string> environment = {absl::StrCat("TEMPER_RANK_FD=", fd)};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    // The token is the node's; a rank has nothing to say to the server.
    if (absl::StartsWith(*variable, "TEMPER_WORKER_TOKEN=") || absl::StartsWith(*variable, "TEMPER_RANK_FD=")) continue;
    environment.emplace_back(*variable);
  }
  if (!SpinCountIsChosen()) environment.push_back(absl::StrCat(kSpinCountVariable, "=", kSpinCount));
  return environment;
}

// What the child needs between fork and exec, prepared before the fork: in the child of a process with threads, only
// async-signal-safe calls are allowed, and allocation is not one.
struct Child {
  const char* binary;
  char* const* arguments;
  char* const* environment;
  pid_t parent;
  int input, socket, out, err, failure, inherited;

  [[noreturn]] void Exec() const {
    // The rank dies with its node, even if the node is killed. A node that died before this line is not noticed by the
    // kernel, hence the second look.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) Fail();
    if (getppid() != parent) _exit(127);
    // Signals that the node blocks in order to wait for them are blocked in the child too.
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    if (dup2(input, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0) Fail();
    if (fcntl(socket, F_SETFD, 0) < 0) Fail();
    if (inherited >= 0 && fcntl(inherited, F_SETFD, 0) < 0) Fail();
    execve(binary, arguments, environment);
    Fail();
  }

  [[noreturn]] void Fail() const {
    const int error = errno;
    [[maybe_unused]] const ssize_t written = write(failure, &error, sizeof error);
    _exit(127);
  }
};

// Gives `sink` what can be read without blocking; false at the end of the stream. Bounded, so that one busy stream does
// not keep the others waiting, by more than a pipe or socket holds, so that nothing of a dead process is left behind.
template <typename Sink>
bool Drain(int fd, Sink&& sink) {
  char bytes[65536];
  for (int chunk = 0; fd >= 0 && chunk < 64; ++chunk) {
    const ssize_t count = read(fd, bytes, sizeof bytes);
    if (count > 0) {
      sink(std::string_view(bytes, static_cast<size_t>(count)));
    } else if (count == 0 || (errno != EINTR && errno != EAGAIN)) {
      return false;
    } else if (errno == EAGAIN) {
      return true;
    }
  }
  return fd >= 0;
}

// Whether reading blocks is a property of the node's end, so the rank still sees blocking streams.
void SetNonBlocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

}  // namespace

absl::StatusOr<std::unique_ptr<RankProcess>> RankProcess::Start(const std::string& binary, Events events,
                                                                int inherited) {
  Pair sockets, out, err, failure, input;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.ends) != 0) return SystemError("socketpair");
  // The failure pipe is closed by a successful exec, and carries errno otherwise.
  for (Pair* pipe : {&out, &err, &failure}) {
    if (pipe2(pipe->ends, O_CLOEXEC) != 0) return SystemError("pipe");
  }
  input.ends[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (input.ends[0] < 0) return SystemError("open /dev/null");

  const std::vector<std::string> environment = RankEnvironment(sockets.ends[1]);
  std::vector<char*> environment_pointers;
  for (const std::string& variable : environment) environment_pointers.push_back(const_cast<char*>(variable.c_str()));
  environment_pointers.push_back(nullptr);
  std::array<char*, 2> arguments = {const_cast<char*>(binary.c_str()), nullptr};
  const Child child{binary.c_str(), arguments.data(), environment_pointers.data(),
                    getpid(),       input.ends[0],    sockets.ends[1],
                    out.ends[1],    err.ends[1],      failure.ends[1],
                    inherited};

  const pid_t pid = fork();
  if (pid < 0) return SystemError("fork");
  if (pid == 0) child.Exec();

  close(failure.Take(1));
  close(sockets.Take(1));
  close(out.Take(1));
  close(err.Take(1));
  int error = 0;
  ssize_t count;
  do {
    count = read(failure.ends[0], &error, sizeof error);
  } while (count < 0 && errno == EINTR);
  if (count != 0) {
    waitpid(pid, nullptr, 0);
    return absl::NotFoundError(absl::StrCat("can't start ", binary, ": ", strerror(error)));
  }
  const int pidfd = pidfd_open(pid, 0);
  if (pidfd < 0) {
    const absl::Status status = SystemError("pidfd_open");
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return status;
  }
  return std::unique_ptr<RankProcess>(
      new RankProcess(pid, pidfd, sockets.Take(0), out.Take(0), err.Take(0), std::move(events)));
}

RankProcess::RankProcess(pid_t pid, int pidfd, int socket, int out, int err, Events events)
    : pid_(pid),
      pidfd_(pidfd),
      socket_(socket),
      out_(out),
      err_(err),
      events_(std::move(events)),
      out_lines_([this](const std::string& line) { events_.on_line(v1::LOG_SEVERITY_INFO, line); }),
      err_lines_([this](const std::string& line) {
        exit_.last_errors.push_back(line);
        if (exit_.last_errors.size() > kKeptErrorLines) exit_.last_errors.pop_front();
        events_.on_line(v1::LOG_SEVERITY_WARNING, line);
      }) {
  for (int fd : {socket_, out_, err_}) SetNonBlocking(fd);
  thread_ = std::thread([this] { Follow(); });
}

RankProcess::~RankProcess() {
  Kill();
  thread_.join();
  for (int fd : {pidfd_, socket_, out_, err_}) close(fd);
}

void RankProcess::Send(const v1::RankCommand& command) {
  if (const absl::Status status = WriteMessage(socket_, command); !status.ok()) {
    spdlog::warn("rank with pid {} did not get a command: {}", pid_, std::string(status.message()));
  }
}

// By pidfd: the pid may belong to another process by now, the descriptor can't.
void RankProcess::Kill() { pidfd_send_signal(pidfd_, SIGKILL, nullptr, 0); }

void RankProcess::Follow() {
  // -1 once the rank has closed its end; poll(2) ignores it.
  int messages = socket_, out = out_, err = err_;
  for (bool running = true; running;) {
    pollfd fds[] = {{messages, POLLIN, 0}, {out, POLLIN, 0}, {err, POLLIN, 0}, {pidfd_, POLLIN, 0}};
    if (poll(fds, std::size(fds), -1) < 0) continue;  // EINTR
    // The process is looked at before its output is read, so that what it wrote before it ended is read even then.
    running = (fds[3].revents & POLLIN) == 0;
    if (!Drain(messages, [this](std::string_view bytes) { ReadMessages(bytes); })) messages = -1;
    if (!Drain(out, [this](std::string_view bytes) { out_lines_.Append(bytes); })) out = -1;
    if (!Drain(err, [this](std::string_view bytes) { err_lines_.Append(bytes); })) err = -1;
  }
  out_lines_.Flush();
  err_lines_.Flush();
  while (waitpid(pid_, &exit_.wait_status, 0) < 0 && errno == EINTR) {
  }
  events_.on_exit(exit_);
}

void RankProcess::ReadMessages(std::string_view bytes) {
  if (talks_nonsense_) return;
  decoder_.Append(bytes);
  for (std::string payload;;) {
    const absl::StatusOr<bool> whole = decoder_.Next(&payload);
    v1::RankReport report;
    if (!whole.ok() || (*whole && !report.ParseFromString(payload))) {
      spdlog::error("rank with pid {} sent what is no report; killing it", pid_);
      talks_nonsense_ = true;
      Kill();
      return;
    }
    if (!*whole) return;
    events_.on_report(std::move(report));
  }
}

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"

struct ssl_ctx_st;

namespace temper {

// What a server shows its callers, and what it asks of them; PEM.
struct TlsFiles {
  std::filesystem::path certificate;  // the chain, the server's own first
  std::filesystem::path key;          // of that one, not encrypted
  std::filesystem::path client_ca;    // callers must show a certificate of one of these; empty: they need none
};

// Looks after the files as long as it lives: when they have changed, and stay so for an interval, what is sound is
// taken over, without a restart, and what is not (a key of another certificate, an expired one, half a file) leaves
// what was there before. Any thread.
class CertificateWatcher {
 public:
  // Told of every change: OK, or why it is not taken over (UNAVAILABLE: not yet, it is tried again). On the watcher's
  // thread.
  using Observer = std::function<void(const absl::Status&)>;

  // `directory` is the watcher's own, created when missing: copies of what is sound, which gRPC reads.
  //
  // FAILED_PRECONDITION: why what the files have now can't be used. UNAVAILABLE: a file can't be read, or the directory
  // can't be written.
  static absl::StatusOr<std::unique_ptr<CertificateWatcher>> Start(TlsFiles files, std::filesystem::path directory,
                                                                   std::chrono::milliseconds interval,
                                                                   Observer observer);
  ~CertificateWatcher();
  CertificateWatcher(const CertificateWatcher&) = delete;
  CertificateWatcher& operator=(const CertificateWatcher&) = delete;

  // The copies: certificate and key are one file, which is replaced at once. For gRPC's FileWatcherCertificateProvider,
  // which takes whatever it finds.
  TlsFiles copies() const;
  // The same for OpenSSL: the newest sound pair, and the CA of clients.
  std::shared_ptr<ssl_ctx_st> context() const;
  // From when on the certificate is good for nothing.
  WallTime expiry() const;

 private:
  struct Loaded {
    std::shared_ptr<ssl_ctx_st> context;
    WallTime expiry;
  };

  CertificateWatcher(TlsFiles files, std::filesystem::path directory, Observer observer);
  // Of all files, by which a change is seen.
  std::string Fingerprint() const;
  absl::Status TakeOver();
  absl::StatusOr<Loaded> Load(const std::filesystem::path& identity, const std::filesystem::path& client_ca) const;
  void Run(std::chrono::milliseconds interval);

  const TlsFiles files_;
  const std::filesystem::path directory_;
  const Observer observer_;
  std::string seen_;  // of the watcher's thread, once it runs

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  Loaded current_;
  bool stopping_ = false;

  std::thread thread_;  // last: it uses everything above
};

}  // namespace temper

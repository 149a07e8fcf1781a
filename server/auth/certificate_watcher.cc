// SPDX-License-Identifier: Apache-2.0
#include "server/auth/certificate_watcher.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<std::string> Read(const fs::path& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (file.is_open() && !file.bad()) return text;
  const int error = errno;
  const std::string message = absl::StrCat(path.string(), ": can't be read: ", std::strerror(error));
  return error == ENOENT ? absl::FailedPreconditionError(message) : absl::UnavailableError(message);
}

absl::Status Write(const fs::path& path, const std::string& text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const bool written =
      file >= 0 && ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(file) == 0;
  const int error = errno;
  if (file >= 0) ::close(file);
  if (written) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(path.string(), ": can't be written: ", std::strerror(error)));
}

absl::Status Rename(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  return error ? absl::UnavailableError(absl::StrCat(to.string(), ": can't be replaced: ", error.message()))
               : absl::OkStatus();
}

// The newest of OpenSSL's errors on this thread; forgets all.
absl::Status Unsound(const fs::path& path, const std::string& what) {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return absl::FailedPreconditionError(
      absl::StrCat(path.string(), ": ", what, reason == nullptr ? "" : absl::StrCat(" (", reason, ")")));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CertificateWatcher>> CertificateWatcher::Start(TlsFiles files, fs::path directory,
                                                                              std::chrono::milliseconds interval,
                                                                              Observer observer) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) return absl::UnavailableError(absl::StrCat(directory.string(), ": ", error.message()));
  fs::permissions(directory, fs::perms::owner_all, error);
  auto watcher = std::unique_ptr<CertificateWatcher>(
      new CertificateWatcher(std::move(files), std::move(directory), std::move(observer)));
  watcher->seen_ = watcher->Fingerprint();
  if (absl::Status status = watcher->TakeOver(); !status.ok()) return status;
  watcher->thread_ = std::thread([self = watcher.get(), interval] { self->Run(interval); });
  return watcher;
}

CertificateWatcher::CertificateWatcher(TlsFiles files, fs::path directory, Observer observer)
    : files_(std::move(files)), directory_(std::move(directory)), observer_(std::move(observer)) {}

CertificateWatcher::~CertificateWatcher() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

TlsFiles CertificateWatcher::copies() const {
  const fs::path identity = directory_ / "identity.pem";
  return {identity, identity, files_.client_ca.empty() ? fs::path() : directory_ / "client-ca.pem"};
}

std::shared_ptr<ssl_ctx_st> CertificateWatcher::context() const {
  std::lock_guard lock(mutex_);
  return current_.context;
}

WallTime CertificateWatcher::expiry() const {
  std::lock_guard lock(mutex_);
  return current_.expiry;
}

std::string CertificateWatcher::Fingerprint() const {
  std::string text;
  for (const fs::path& path : {files_.certificate, files_.key, files_.client_ca}) {
    struct stat status{};
    if (path.empty() || ::stat(path.c_str(), &status) != 0) status = {};
    absl::StrAppend(&text, status.st_dev, " ", status.st_ino, " ", status.st_size, " ", status.st_mtim.tv_sec, ".",
                    status.st_mtim.tv_nsec, "\n");
  }
  return text;
}

absl::Status CertificateWatcher::TakeOver() {
  const auto certificate = Read(files_.certificate);
  if (!certificate.ok()) return certificate.status();
  const auto key = Read(files_.key);
  if (!key.ok()) return key.status();
  const TlsFiles copies = this->copies();
  const fs::path identity = directory_ / "incoming-identity.pem";
  if (absl::Status status = Write(identity, absl::StrCat(*certificate, "\n", *key)); !status.ok()) return status;
  fs::path client_ca;
  if (!files_.client_ca.empty()) {
    const auto text = Read(files_.client_ca);
    if (!text.ok()) return text.status();
    client_ca = directory_ / "incoming-client-ca.pem";
    if (absl::Status status = Write(client_ca, *text); !status.ok()) return status;
  }
  auto loaded = Load(identity, client_ca);
  if (!loaded.ok()) return loaded.status();
  if (absl::Status status = Rename(identity, copies.key); !status.ok()) return status;
  if (!client_ca.empty()) {
    if (absl::Status status = Rename(client_ca, copies.client_ca); !status.ok()) return status;
  }
  std::lock_guard lock(mutex_);
  current_ = *std::move(loaded);
  return absl::OkStatus();
}

absl::StatusOr<CertificateWatcher::Loaded> CertificateWatcher::Load(const fs::path& identity,
                                                                    const fs::path& client_ca) const {
  ERR_clear_error();
  Loaded loaded{.context = {SSL_CTX_new(TLS_server_method()), SSL_CTX_free}, .expiry = {}};
  SSL_CTX* context = loaded.context.get();
  if (SSL_CTX_use_certificate_chain_file(context, identity.c_str()) != 1) {
    return Unsound(files_.certificate, "no certificate");
  }
  if (SSL_CTX_use_PrivateKey_file(context, identity.c_str(), SSL_FILETYPE_PEM) != 1) {
    return Unsound(files_.key, absl::StrCat("not the key of ", files_.certificate.string()));
  }
  if (SSL_CTX_check_private_key(context) != 1) {
    return Unsound(files_.key, absl::StrCat("not the key of ", files_.certificate.string()));
  }
  if (!client_ca.empty() && SSL_CTX_load_verify_file(context, client_ca.c_str()) != 1) {
    return Unsound(files_.client_ca, "no certificate");
  }
  std::tm expiry{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(SSL_CTX_get0_certificate(context)), &expiry) != 1) {
    return Unsound(files_.certificate, "no time of expiry");
  }
  loaded.expiry = std::chrono::system_clock::from_time_t(::timegm(&expiry));
  if (loaded.expiry <= std::chrono::system_clock::now()) return Unsound(files_.certificate, "has expired");
  return loaded;
}

void CertificateWatcher::Run(std::chrono::milliseconds interval) {
  std::string last = seen_;
  absl::Status told;
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, interval, [this] { return stopping_; })) {
    lock.unlock();
    const std::string now = Fingerprint();
    // Not while one file is replaced and the next is about to be: that pair would be refused, and somebody alarmed.
    const bool settled = now == std::exchange(last, now);
    if (settled && now != seen_) {
      const absl::Status status = TakeOver();
      // A full disk or a failure to read passes: the next look tries again, and says only what is new.
      const bool passing = !status.ok() && !absl::IsFailedPrecondition(status);
      if (!passing) seen_ = now;
      if (!passing || status != told) observer_(status);
      told = status;
    }
    lock.lock();
  }
}

}  // namespace temper

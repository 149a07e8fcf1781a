// SPDX-License-Identifier: Apache-2.0
#include "server/launch/worker_environment.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace temper {
namespace {

// The launcher gives each worker its own, and a client's token is nobody else's.
constexpr std::array<std::string_view, 4> kNever = {"TEMPER_TOKEN", "TEMPER_WORKER_TOKEN", "TEMPER_RUN_DIR",
                                                    "CUDA_VISIBLE_DEVICES"};

bool IsNever(std::string_view name) { return std::find(kNever.begin(), kNever.end(), name) != kNever.end(); }

bool Matches(std::string_view name, std::string_view pattern) {
  if (!pattern.ends_with('*')) return name == pattern;
  return name.starts_with(pattern.substr(0, pattern.size() - 1));
}

template <typename Patterns>
bool MatchesAny(std::string_view name, const Patterns& patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [name](std::string_view pattern) { return Matches(name, pattern); });
}

}  // namespace

const std::vector<std::string_view>& WorkerEnvironment::Patterns() {
  static const std::vector<std::string_view> patterns = {
      // The process
      "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LC_*", "XDG_CACHE_HOME",
      "LD_LIBRARY_PATH", "MALLOC_*", "GLIBC_TUNABLES", "TCMALLOC_*",
      // temper's own
      "TEMPER_CPU_KERNELS", "TEMPER_LOG_FORMAT", "TEMPER_PYTHON", "GRPC_*",
      // Threads, operators, devices, and traffic between ranks
      "OMP_*", "KMP_*", "GOMP_*", "MKL_*", "ONEDNN_*", "DNNL_*", "ATEN_*", "TORCH_*", "PYTORCH_*", "CUDA_*", "CUBLAS_*",
      "CUDNN_*", "NVIDIA_*", "NCCL_*", "GLOO_*",
      // transformers, tokenizers and the hub
      "HF_*", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_CACHE", "PYTHONPATH", "TRANSFORMERS_*", "TOKENIZERS_*",
      // Storage, and the way there
      "AWS_*", "GOOGLE_*", "CLOUD_STORAGE_*", "STORAGE_EMULATOR_HOST", "AZURE_*", "IDENTITY_ENDPOINT",
      "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT", "SSL_CERT_FILE", "SSL_CERT_DIR",
      "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY",
      "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"};
  return patterns;
}

absl::Status WorkerEnvironment::CheckPattern(std::string_view pattern) {
  const std::string_view name = pattern.ends_with('*') ? pattern.substr(0, pattern.size() - 1) : pattern;
  const bool is_name = !pattern.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '_';
  });
  if (!is_name) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", std::string(pattern),
                     "' is not the name of a variable, or the beginning of names with an asterisk at its end"));
  }
  if (!IsNever(pattern)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("workers never have the server's ", std::string(pattern)));
}

bool WorkerEnvironment::Passes(std::string_view name) const {
  return !IsNever(name) && (MatchesAny(name, Patterns()) || MatchesAny(name, added_));
}

std::vector<std::string> WorkerEnvironment::Select(char* const* environment) const {
  std::vector<std::string> selected;
  for (char* const* entry = environment; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (Passes(text.substr(0, text.find('=')))) selected.emplace_back(text);
  }
  return selected;
}

}  // namespace temper

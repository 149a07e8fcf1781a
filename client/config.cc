// SPDX-License-Identifier: Apache-2.0
#include "client/config.h"

#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/suggestion.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<std::string> ReadText(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (file.bad() || !file.is_open() || fs::is_directory(path)) {
    const int error = errno != 0 ? errno : EISDIR;
    return absl::FailedPreconditionError(absl::StrCat("cannot read ", path, ": ", std::strerror(error)));
  }
  return text;
}

absl::Status Problem(const std::string& path, const YAML::Mark& mark, const std::string& text) {
  const std::string where = mark.is_null() ? path : absl::StrCat(path, ":", mark.line + 1);
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", text));
}

}  // namespace

std::string ClientConfigPath() {
  const char* config = std::getenv("XDG_CONFIG_HOME");
  if (config != nullptr && *config == '/') return absl::StrCat(config, "/temper/config.yaml");
  const char* home = std::getenv("HOME");
  return home != nullptr && *home != '\0' ? absl::StrCat(home, "/.config/temper/config.yaml") : "";
}

absl::StatusOr<ClientConfig> ReadClientConfig(const std::string& path) {
  std::error_code unknown;
  if (path.empty() || !fs::exists(path, unknown)) return ClientConfig();
  const absl::StatusOr<std::string> text = ReadText(path);
  if (!text.ok()) return text.status();
  ClientConfig config;
  std::string token_file, insecure;
  const std::vector<std::pair<std::string, std::string*>> keys = {{"server", &config.server},
                                                                  {"token", &config.token},
                                                                  {"token_file", &token_file},
                                                                  {"ca_file", &config.tls.ca_file},
                                                                  {"cert_file", &config.tls.certificate_file},
                                                                  {"key_file", &config.tls.key_file},
                                                                  {"insecure", &insecure}};
  try {
    const YAML::Node root = YAML::Load(*text);
    if (root.IsNull()) return config;
    if (!root.IsMap()) return Problem(path, root.Mark(), "expected `server: HOST:PORT`, `token` or `token_file`");
    for (const auto& entry : root) {
      const std::string name = entry.first.as<std::string>();
      std::vector<std::string> names;
      std::string* value = nullptr;
      for (const auto& [key, target] : keys) {
        names.push_back(key);
        if (key == name) value = target;
      }
      if (value == nullptr) {
        const auto meant = ClosestName(name, names);
        return Problem(
            path, entry.first.Mark(),
            absl::StrCat("unknown key '", name, "'; ",
                         meant ? absl::StrCat("did you mean '", *meant, "'?")
                               : "possible are server, token, token_file, ca_file, cert_file, key_file and insecure"));
      }
      if (!entry.second.IsScalar()) return Problem(path, entry.first.Mark(), absl::StrCat(name, " must be a text"));
      *value = entry.second.as<std::string>();
      if (value == &insecure && insecure != "true" && insecure != "false") {
        return Problem(path, entry.first.Mark(), "insecure must be true or false");
      }
    }
  } catch (const YAML::Exception& e) {
    return Problem(path, e.mark, absl::StrCat("is not valid YAML: ", e.msg));
  }
  for (std::string* file : {&config.tls.ca_file, &config.tls.certificate_file, &config.tls.key_file}) {
    if (!file->empty()) *file = (fs::path(path).parent_path() / *file).string();
  }
  config.insecure = insecure == "true";
  if (token_file.empty()) return config;
  if (!config.token.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has token and token_file; remove one of them"));
  }
  const absl::StatusOr<std::string> token = ReadToken((fs::path(path).parent_path() / token_file).string());
  if (!token.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": token_file: ", token.status().message()));
  }
  config.token = *token;
  return config;
}

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadText(path);
  if (!text.ok()) return text.status();
  return std::string(absl::StripAsciiWhitespace(*text));
}

}  // namespace temper

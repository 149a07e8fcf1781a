// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace temper {

// Reads a config.json so that nothing in it is overlooked: every key must be read, or stand on the one list of keys
// that change nothing about the computation (config_reader.cc), or Finish() fails.
//
// Errors are collected, so that `configure` of a family reads as a list of fields; Finish() returns them all. A getter
// that failed returns a harmless value. A key whose value is null counts as absent.
class ConfigReader {
 public:
  // `config` must outlive the reader. `path` is for messages: nested objects are read by readers of their own.
  explicit ConfigReader(const nlohmann::ordered_json& config, std::string path = "");

  // Required.
  int64_t Int(std::string_view key);
  double Double(std::string_view key);
  bool Bool(std::string_view key);
  std::string String(std::string_view key);
  // A size: an integer of at least 1.
  int64_t Size(std::string_view key);

  // Absent: the default.
  int64_t Int(std::string_view key, int64_t absent);
  double Double(std::string_view key, double absent);
  bool Bool(std::string_view key, bool absent);
  std::string String(std::string_view key, std::string_view absent);
  int64_t Size(std::string_view key, int64_t absent);

  // For keys whose null says something else than their absence: null is 0.
  int64_t SizeOrNull(std::string_view key, int64_t absent);
  double DoubleOrNull(std::string_view key, double absent);

  bool Has(std::string_view key) const;
  // The value itself, marked as read; null when absent.
  const nlohmann::ordered_json& Raw(std::string_view key);

  // The value must be absent or equal to `supported`; `why` ends the message otherwise.
  void Expect(std::string_view key, const nlohmann::ordered_json& supported, std::string_view why);

  void AddError(std::string_view key, std::string message);

  // Takes over what a reader of a nested object found.
  void Merge(const absl::Status& status);

  // The same for a value that is sound, but that we have nothing for.
  void AddUnsupported(std::string_view key, std::string message);

  // All errors in one status: INVALID_ARGUMENT, or UNIMPLEMENTED when all that is wrong is what we have nothing for,
  // keys that nobody read among it.
  absl::Status Finish();

 private:
  const nlohmann::ordered_json* Find(std::string_view key);
  bool Require(std::string_view key);
  bool IsNull(std::string_view key) const;
  std::string Path(std::string_view key) const;

  const nlohmann::ordered_json& config_;
  std::string path_;
  std::set<std::string, std::less<>> read_;
  std::vector<std::string> errors_;
  bool unsound_ = false;  // one of them is no mere lack of ours
};

}  // namespace temper

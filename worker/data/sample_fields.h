// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/data/sample.h"

namespace temper {

// The fields of one record, by our names. What is taken out of it is gone.
class SampleFields {
 public:
  // All must outlive it. `forms`: our names of which those that `columns` names, if it does, are the only ones that
  // count.
  SampleFields(nlohmann::ordered_json& record, const ColumnNames& columns, const std::string& where,
               std::span<const char* const> forms);

  // Null when there is no such field, or when it does not count.
  nlohmann::ordered_json* Find(const std::string& field) const;

  // As a person would look for it: "`messages`", or "`conversation` (messages)" where the file has another name for it.
  std::string Name(const std::string& field) const;

  // "`a`, `b`": what the record has, for messages.
  std::string FoundKeys() const;

  // INVALID_ARGUMENT that begins with where the record stands.
  absl::Status Invalid(const std::string& text) const;

  // Of a field that is there: INVALID_ARGUMENT if it is anything else.
  absl::StatusOr<std::string> TakeText(const std::string& field) const;
  absl::StatusOr<nlohmann::ordered_json> TakeMessages(const std::string& field) const;

  // What the template gets beside the messages.
  absl::StatusOr<nlohmann::ordered_json> TakeVariables() const;

 private:
  bool Counts(const std::string& field) const;

  nlohmann::ordered_json& record_;
  const ColumnNames& columns_;
  const std::string& where_;
  std::span<const char* const> forms_;
  bool form_is_named_ = false;
};

}  // namespace temper

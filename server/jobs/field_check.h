// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"

namespace temper {

// Collects what is wrong with a job's spec. Fields are named by their paths in it.
class FieldCheck {
 public:
  std::vector<FieldViolation> violations;

  void Wrong(std::string_view field, std::string description) {
    violations.push_back({absl::StrCat("spec.", std::string(field)), std::move(description)});
  }

  // `limits` reads on from "must be".
  template <typename Number>
  void Require(bool ok, std::string_view field, std::string_view limits, Number value) {
    if (!ok) Wrong(field, absl::StrCat("must be ", std::string(limits), ", not ", value));
  }

  // That a URI is of a form that this version reads. `what` it should name is told where it is empty.
  void Uri(std::string_view field, const std::string& uri, std::string_view what);

 private:
  void Remote(std::string_view field, const std::string& uri);
};

}  // namespace temper

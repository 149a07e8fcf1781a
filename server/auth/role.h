// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace temper {

// What a token lets its holder do; each role may do what those before it may.
//   reader     sees every job: states, logs, metrics, checkpoints; no weights
//   submitter  submits jobs and uploads data; controls its own jobs and takes their results home
//   admin      the same of everybody's jobs, and creates and revokes tokens
enum class Role { kReader = 1, kSubmitter = 2, kAdmin = 3 };

// "reader", "submitter", "admin".
std::string RoleName(Role role);
std::optional<Role> ParseRole(std::string_view name);

// Who calls.
struct Identity {
  // As its token has it: the owner of the jobs that it submits. Empty: somebody, for the server asks for no tokens.
  std::string name;
  Role role = Role::kReader;
};

}  // namespace temper

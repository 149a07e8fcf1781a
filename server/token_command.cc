// SPDX-License-Identifier: Apache-2.0
#include "server/token_command.h"

#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "server/auth/token_store.h"
#include "server/server_options.h"

namespace temper {
namespace {

std::string TimeText(const std::optional<WallTime>& time) {
  return time ? absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromChrono(*time), absl::UTCTimeZone()) : "-";
}

// The token alone on standard output, so that `>` and `$(…)` take it.
absl::Status Create(TokenStore& store, const Identity& identity, long lifetime) {
  const auto created =
      store.Create(identity, lifetime > 0 ? std::optional(std::chrono::seconds(lifetime)) : std::nullopt);
  if (!created.ok()) return created.status();
  std::cerr << "token " << created->record.id << " of " << identity.name << " (" << RoleName(identity.role)
            << "), expires: " << (lifetime > 0 ? TimeText(created->record.expire_time) : "never")
            << "; it is shown this once:\n";
  std::cout << created->token << "\n";
  return absl::OkStatus();
}

absl::Status List(const TokenStore& store) {
  const auto records = store.List();
  if (!records.ok()) return records.status();
  constexpr char kRow[] = "%-18s%-24s%-11s%-22s%-22s%s\n";
  absl::PrintF(kRow, "ID", "IDENTITY", "ROLE", "CREATED", "EXPIRES", "REVOKED");
  for (const TokenRecord& record : *records) {
    absl::PrintF(kRow, record.id, record.identity.name, RoleName(record.identity.role), TimeText(record.create_time),
                 TimeText(record.expire_time), TimeText(record.revoke_time));
  }
  return absl::OkStatus();
}

}  // namespace

TokenCommand::TokenCommand(CLI::App& app, const std::string& data_dir)
    : command_(app.add_subcommand("token", "Create, list and revoke the tokens of a data directory")),
      create_(command_->add_subcommand("create", "Print a new token; nobody can show it again")),
      list_(command_->add_subcommand("list", "All tokens, without what is secret of them")),
      revoke_(command_->add_subcommand("revoke", "A token is good for nothing any more")),
      data_dir_(data_dir) {
  command_->require_subcommand(1);
  for (CLI::App* one : {command_, create_, list_, revoke_}) one->fallthrough();
  create_->add_option("identity", identity_, "Who shows it: the owner of the jobs that it submits")->required();
  create_->add_option("--role", role_, "What it is good for")
      ->check(CLI::IsMember({"reader", "submitter", "admin"}))
      ->capture_default_str();
  create_->add_option("--expires", lifetime_, "After how long, as 30d or 12h. Default: never")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, long>{{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86'400}},
                                        CLI::AsNumberWithUnit::UNIT_REQUIRED))
      ->check(CLI::PositiveNumber);
  revoke_->add_option("id", id_, "As `list` has it")->required();
}

int TokenCommand::Run() const {
  const RealClock clock;
  const auto store = TokenStore::Open(data_dir_, clock);
  if (!store.ok()) {
    std::cerr << "temper-server: " << store.status().message() << "\n";
    return kServerDataDir;
  }
  absl::Status status;
  if (create_->parsed()) status = Create(**store, {identity_, ParseRole(role_).value_or(Role::kReader)}, lifetime_);
  if (list_->parsed()) status = List(**store);
  if (revoke_->parsed()) status = (*store)->Revoke(id_).status();
  if (status.ok()) return kServerOk;
  std::cerr << "temper-server: " << status.message() << "\n";
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ? kServerUsage : kServerOther;
}

}  // namespace temper

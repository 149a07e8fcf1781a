// SPDX-License-Identifier: Apache-2.0
// token create, list, revoke: who may use the server, for its admins.
#include "client/command/token.h"

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/command/format.h"
#include "client/command/table.h"

namespace temper::command {
namespace {

struct NewToken {
  std::string identity;
  std::string role = "submitter";
  int64_t lifetime = 0;  // in seconds; 0: for ever
};

std::string RoleText(v1::Role role) {
  return absl::AsciiStrToLower(v1::Role_Name(role).substr(std::string("ROLE_").size()));
}

std::string TimeText(bool has, const google::protobuf::Timestamp& time) {
  return has ? HumanTime(time, absl::LocalTimeZone()) : "";
}

// The token alone on standard output, so that `>` and `$(…)` take it.
ExitCode Create(const Context& context, const TokenClient& tokens, const NewToken& wanted) {
  v1::CreateTokenRequest request;
  request.set_identity(wanted.identity);
  v1::Role role = v1::ROLE_UNSPECIFIED;
  v1::Role_Parse(absl::StrCat("ROLE_", absl::AsciiStrToUpper(wanted.role)), &role);
  request.set_role(role);
  if (wanted.lifetime > 0) request.mutable_lifetime()->set_seconds(wanted.lifetime);
  const auto created = tokens.CreateToken(request);
  if (!created.ok()) return Fail(context, created.status());
  if (context.json) {
    PrintJson(*created);
    return kExitOk;
  }
  const v1::Token& token = created->token();
  std::fprintf(stderr, "%s of %s (%s), expires: %s; it is shown this once:\n", token.name().c_str(),
               token.identity().c_str(), RoleText(token.role()).c_str(),
               token.has_expire_time() ? TimeText(true, token.expire_time()).c_str() : "never");
  std::printf("%s\n", created->secret().c_str());
  return kExitOk;
}

ExitCode List(const Context& context, const TokenClient& tokens) {
  const auto list = tokens.ListTokens();
  if (!list.ok()) return Fail(context, list.status());
  if (context.json) {
    PrintJson(*list);
    return kExitOk;
  }
  Table table({"ID", "IDENTITY", "ROLE", "CREATED", "EXPIRES", "REVOKED"});
  for (const v1::Token& token : list->tokens()) {
    table.AddRow({token.name().substr(std::string("tokens/").size()), Printable(token.identity()),
                  RoleText(token.role()), TimeText(true, token.create_time()),
                  TimeText(token.has_expire_time(), token.expire_time()),
                  TimeText(token.has_revoke_time(), token.revoke_time())});
  }
  std::fputs(table.Render(/*width=*/0).c_str(), stdout);
  return kExitOk;
}

ExitCode Revoke(const Context& context, const TokenClient& tokens, const std::string& id) {
  const auto token = tokens.RevokeToken(id);
  if (!token.ok()) return Fail(context, token.status());
  if (context.json) {
    PrintJson(*token);
  } else {
    std::printf("%s of %s is revoked\n", token->name().c_str(), token->identity().c_str());
  }
  return kExitOk;
}

void AddCreate(CLI::App& token, CommandLine& line, const std::optional<TokenClient>& tokens) {
  auto wanted = std::make_shared<NewToken>();
  CLI::App* create = token.add_subcommand("create", "Print a new token; nobody can show it again");
  create->fallthrough();
  create->add_option("identity", wanted->identity, "Who shows it: the owner of the jobs that it submits")->required();
  create->add_option("--role", wanted->role, "What it is good for; `temper token --help` says more")
      ->check(CLI::IsMember({"reader", "submitter", "admin"}))
      ->capture_default_str();
  create->add_option("--expires", wanted->lifetime, "After how long, as 30d or 12h. Default: never")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, int64_t>{{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86'400}},
                                        CLI::AsNumberWithUnit::UNIT_REQUIRED))
      ->check(CLI::PositiveNumber);
  create->footer("Examples:\n  temper token create ana --expires 90d > ana.token");
  create->callback([wanted, &line, &tokens] {
    line.action = [wanted, &tokens](const Context& context) { return Create(context, *tokens, *wanted); };
  });
}

void AddRevoke(CLI::App& token, CommandLine& line, const std::optional<TokenClient>& tokens) {
  auto id = std::make_shared<std::string>();
  CLI::App* revoke = token.add_subcommand("revoke", "Make a token good for nothing, from the next call on");
  revoke->fallthrough();
  revoke->add_option("id", *id, "As `temper token list` has it")->required();
  revoke->footer("Examples:\n  temper token revoke 0f3a6c9e1b2d4857");
  revoke->callback([id, &line, &tokens] {
    line.action = [id, &tokens](const Context& context) { return Revoke(context, *tokens, *id); };
  });
}

}  // namespace

void AddToken(CLI::App& app, CommandLine& line, const std::optional<TokenClient>& tokens) {
  CLI::App* token = app.add_subcommand("token", "Create, list and revoke tokens, as an admin of the server");
  token->fallthrough();
  token->require_subcommand(1);
  AddCreate(*token, line, tokens);
  CLI::App* list = token->add_subcommand("list", "All tokens, without what is secret of them");
  list->fallthrough();
  list->footer("Examples:\n  temper token list --output json");
  list->callback(
      [&line, &tokens] { line.action = [&tokens](const Context& context) { return List(context, *tokens); }; });
  AddRevoke(*token, line, tokens);
  token->footer(
      "Each role may do what those before it may:\n"
      "  reader     sees every job: states, logs, metrics, checkpoints; no weights\n"
      "  submitter  submits jobs and uploads data; controls its own jobs and takes their results home\n"
      "  admin      the same of everybody's jobs, and tokens\n\n"
      "The first admin's token is made on the server's own machine: `temper-server token create ana --role admin`.\n\n"
      "Examples:\n"
      "  temper token create ana --expires 90d > ana.token\n"
      "  temper token list\n"
      "  temper token revoke 0f3a6c9e1b2d4857");
}

}  // namespace temper::command

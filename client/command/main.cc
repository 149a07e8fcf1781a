// SPDX-License-Identifier: Apache-2.0
// temper, the command line.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/channel.h"
#include "client/command/command_line.h"
#include "client/command/completion.h"
#include "client/command/exit_code.h"
#include "client/command/interrupt.h"
#include "client/command/terminal.h"
#include "client/command/token.h"
#include "client/config.h"
#include "client/suggestion.h"
#include "client/training_client.h"

namespace {

std::string Environment(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : fallback;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace temper;
  using namespace temper::command;

  // A reader that goes away (`temper list | head`) is no crash: writes fail instead.
  ::signal(SIGPIPE, SIG_IGN);

  CLI::App app{"temper: submit training jobs, follow them, take the results home", "temper"};
  app.set_version_flag("--version", std::string("temper ") + TEMPER_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  CommandLine line;
  std::string token_file;
  ChannelTls tls;
  bool insecure = false;
  std::optional<TokenClient> tokens;
  const auto config = ReadClientConfig(ClientConfigPath());
  const bool configured = config.ok() && !config->server.empty();
  line.server = Environment("TEMPER_SERVER", configured ? config->server.c_str() : kDefaultServer);
  app.add_option("--server", line.server,
                 "Address of the server, HOST:PORT or https://HOST:PORT (environment: TEMPER_SERVER)")
      ->capture_default_str();
  if (config.ok()) {
    tls = config->tls;
    insecure = config->insecure;
  }
  app.add_option("--ca-file", tls.ca_file,
                 "Who may have signed the server's certificate (PEM); with it, or https://HOST:PORT, calls go over TLS")
      ->envname("TEMPER_CA_FILE");
  app.add_option("--cert-file", tls.certificate_file, "What to show a server that asks for a certificate (PEM)")
      ->envname("TEMPER_CERT_FILE");
  app.add_option("--key-file", tls.key_file, "Of that certificate (PEM)")->envname("TEMPER_KEY_FILE");
  app.add_option("--token-file", token_file,
                 "File with the token to show the server (environment: TEMPER_TOKEN, the token itself)");
  app.add_flag("--insecure", insecure,
               "Let the token go to another host in plain text, where whoever is on the way can read it");
  app.add_option("--output", line.output,
                 "'table' for people; 'json' for programs: one object, or one a line for watch and logs")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  app.add_option("--color", line.color, "Colours: 'auto' has them on a terminal, unless NO_COLOR is set")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();
  AddSubmit(app, line);
  AddPreflight(app, line);
  AddVerify(app, line);
  AddFamilies(app, line);
  AddList(app, line);
  AddGet(app, line);
  AddWatch(app, line);
  AddLogs(app, line);
  AddMetrics(app, line);
  AddPause(app, line);
  AddResume(app, line);
  AddCancel(app, line);
  AddDelete(app, line);
  AddCheckpoints(app, line);
  AddDownload(app, line);
  AddToken(app, line, tokens);
  AddCompletion(app, line);
  app.footer(
      absl::StrCat("Environment:\n"
                   "  TEMPER_SERVER  as --server\n"
                   "  TEMPER_TOKEN   shown to the server with every call, when set; --token-file comes first\n"
                   "  NO_COLOR       no colours, when set\n\n"
                   "~/.config/temper/config.yaml may say `server`, `token` or `token_file`, `ca_file`, `cert_file`,\n"
                   "`key_file` and `insecure: true`; the environment comes first.\n\n",
                   kExitCodeHelp,
                   "\nExamples:\n"
                   "  temper submit client/examples/sft.yaml --watch\n"
                   "  temper list --state running\n"
                   "  temper download JOB --to ./my-model\n\n"
                   "`temper COMMAND --help` says more about each."));
  if (argc > 1 && std::string_view(argv[1]) == "__complete") {
    for (const std::string& one : Complete(app, {argv + 2, argv + argc})) std::cout << one << "\n";
    return kExitOk;
  }
  // CLI11 would only say that a subcommand is missing.
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  if (argc > 1 && argv[1][0] != '-' && std::find(names.begin(), names.end(), argv[1]) == names.end()) {
    const auto meant = ClosestName(argv[1], names);
    std::cerr << "temper: '" << argv[1] << "' is no command; "
              << (meant ? absl::StrCat("did you mean '", *meant, "'?") : "`temper --help` lists them") << "\n";
    return kExitUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kExitOk : kExitUsage;
  }

  if (!config.ok() && !line.offline) {
    std::cerr << "temper: " << config.status().message() << "\n";
    return kExitUsage;
  }

  absl::StatusOr<std::string> token = Environment("TEMPER_TOKEN", config.ok() ? config->token.c_str() : "");
  if (!token_file.empty()) token = ReadToken(token_file);
  if (!token.ok()) {
    std::cerr << "temper: --token-file: " << token.status().message() << "\n";
    return kExitUsage;
  }

  if (absl::Status status = CheckTokenIsPrivate(line.server, tls); !token->empty() && !insecure && !status.ok()) {
    std::cerr << "temper: " << status.message() << "\n";
    return kExitUsage;
  }

  Interrupt interrupt;
  const Terminal terminal = Terminal::OfStandardOutput(line.color);
  const auto channel = MakeChannel(line.server, tls);
  if (!channel.ok()) {
    std::cerr << "temper: " << channel.status().message() << "\n";
    return kExitUsage;
  }
  const TrainingClient client(*channel, {.token = *token, .stop = interrupt.token()});
  tokens.emplace(*channel, client.options());
  return line.action({.client = client, .terminal = terminal, .server = line.server, .json = line.output == "json"});
}

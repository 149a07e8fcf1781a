// SPDX-License-Identifier: Apache-2.0
#include "client/command/completion.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace temper::command {
namespace {

constexpr char kBash[] = R"(# temper(1) completion for bash:  source <(temper completion bash)
_temper() {
  local IFS=$'\n' current=${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=($(temper __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
  if [[ ${COMPREPLY[0]-} == :files ]]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "${current#=}"))
  fi
}
complete -F _temper temper
)";

constexpr char kZsh[] = R"(#compdef temper
# temper(1) completion for zsh:  source <(temper completion zsh)
_temper() {
  local -a reply
  reply=("${(@f)$(temper __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ ${reply[1]} == :files ]]; then
    _files
  else
    compadd -- ${reply:#}
  fi
}
compdef _temper temper
)";

constexpr char kFish[] = R"(# temper(1) completion for fish:  temper completion fish | source
function __temper_complete
    set -l words (commandline --tokenize --cut-at-cursor) (commandline --current-token --cut-at-cursor)
    set -l reply (temper __complete $words[2..-1] 2>/dev/null)
    if test "$reply[1]" = :files
        __fish_complete_path (commandline --current-token --cut-at-cursor)
    else
        printf '%s\n' $reply
    end
end
complete --command temper --no-files --arguments '(__temper_complete)'
)";

const std::map<std::string, const char*>& Scripts() {
  static const std::map<std::string, const char*> scripts = {{"bash", kBash}, {"fish", kFish}, {"zsh", kZsh}};
  return scripts;
}

bool TakesValue(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

// The option that is called `name` in `app` or above it.
const CLI::Option* FindOption(const CLI::App* app, const std::string& name) {
  for (; app != nullptr; app = app->get_parent()) {
    if (const CLI::Option* option = app->get_option_no_throw(name)) return option;
  }
  return nullptr;
}

std::vector<std::string> StartingWith(std::string_view prefix, std::vector<std::string> all) {
  std::erase_if(all, [&](const std::string& one) { return !one.starts_with(prefix); });
  return all;
}

// The values of a list, or files where the option or argument says so.
std::vector<std::string> Values(const CLI::Option* option, std::string_view prefix) {
  if (option == nullptr) return {};
  const std::string type = option->get_type_name();  // "FILE", "TEXT:{table,json}", "{queued,running}"
  if (absl::StartsWith(type, "FILE") || absl::StartsWith(type, "DIR")) return {kFileNames};
  const size_t begin = type.find('{'), end = type.rfind('}');
  if (begin == std::string::npos || end == std::string::npos || end < begin) return {};
  const size_t comma = option->get_delimiter() == '\0' ? std::string_view::npos : prefix.rfind(option->get_delimiter());
  const std::string before(
      prefix.substr(0, comma == std::string_view::npos ? 0 : comma + 1));  // of a list, what stands
  std::vector<std::string> values =
      StartingWith(prefix.substr(before.size()), absl::StrSplit(type.substr(begin + 1, end - begin - 1), ','));
  for (std::string& value : values) value.insert(0, before);
  return values;
}

std::vector<std::string> OptionNames(const CLI::App* app, std::string_view prefix) {
  std::vector<std::string> names;
  for (; app != nullptr; app = app->get_parent()) {
    for (const CLI::Option* option : app->get_options([](const CLI::Option*) { return true; })) {
      for (const std::string& name : option->get_lnames()) names.push_back(absl::StrCat("--", name));
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return StartingWith(prefix, std::move(names));
}

const CLI::App* Subcommand(const CLI::App& app, const std::string& name) {
  const auto found = app.get_subcommands([&name](const CLI::App* any) { return any->get_name() == name; });
  return found.empty() ? nullptr : found.front();
}

const CLI::Option* Positional(const CLI::App& app, size_t index) {
  for (const CLI::Option* option : app.get_options([](const CLI::Option* any) { return any->get_positional(); })) {
    if (index-- == 0) return option;
  }
  return nullptr;
}

}  // namespace

std::vector<std::string> Complete(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* command = &app;
  const CLI::Option* open = nullptr;  // waits for its value
  size_t positionals = 0;
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "=") continue;  // bash makes three words of --name=value
    if (open != nullptr) {
      open = nullptr;
    } else if (word.starts_with('-') && word.size() > 1) {
      const CLI::Option* option = word.find('=') == std::string::npos ? FindOption(command, word) : nullptr;
      if (option != nullptr && TakesValue(*option)) open = option;
    } else if (const CLI::App* next = Subcommand(*command, word); next != nullptr) {
      command = next;
    } else {
      ++positionals;
    }
  }
  const std::string current = words.empty() || words.back() == "=" ? "" : words.back();
  if (open != nullptr) return Values(open, current);
  if (const size_t equals = current.find('='); current.starts_with("--") && equals != std::string::npos) {
    const std::string name = current.substr(0, equals + 1);
    std::vector<std::string> values =
        Values(FindOption(command, current.substr(0, equals)), current.substr(equals + 1));
    for (std::string& value : values) {
      if (value != kFileNames) value = name + value;
    }
    return values;
  }
  if (current.starts_with('-')) return OptionNames(command, current);
  std::vector<std::string> names;
  for (const CLI::App* one : command->get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(one->get_name());
  }
  if (!names.empty()) return StartingWith(current, std::move(names));
  return Values(Positional(*command, positionals), current);
}

void AddCompletion(CLI::App& app, CommandLine& line) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completion", "Print a script with which a shell completes temper's words");
  command->add_option("shell", *shell, "Which shell")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->footer(
      "Examples:\n"
      "  source <(temper completion bash)          # in ~/.bashrc; zsh in ~/.zshrc alike\n"
      "  temper completion fish > ~/.config/fish/completions/temper.fish");
  command->callback([shell, &line] {
    line.offline = true;  // a shell's start must not depend on a config file
    line.action = [shell](const Context&) {
      std::fputs(Scripts().at(*shell), stdout);
      return kExitOk;
    };
  });
}

}  // namespace temper::command

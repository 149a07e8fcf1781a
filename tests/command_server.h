// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace temper {

// Runs commands of a test program, each in a fork of this process, which has torch loaded already: that takes longer
// than most commands. For tests/command_server.py. A line of stdin is {"arguments": […], "stdout": FILE, "stderr":
// FILE}; the answer is a line with the exit status. Returns at the end of stdin. This process itself must never
// compute: threads would not be in its forks.
inline int ServeCommands(char* program, int (*run)(int argc, char** argv)) {
  for (std::string line; std::getline(std::cin, line);) {
    const nlohmann::json command = nlohmann::json::parse(line);
    const pid_t child = fork();
    if (child == 0) {
      auto arguments = command["arguments"].get<std::vector<std::string>>();
      std::vector<char*> argv = {program};
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      dup2(open(command["stdout"].get<std::string>().c_str(), O_WRONLY), STDOUT_FILENO);
      dup2(open(command["stderr"].get<std::string>().c_str(), O_WRONLY), STDERR_FILENO);
      std::exit(run(static_cast<int>(argv.size()) - 1, argv.data()));
    }
    int status = 0;
    waitpid(child, &status, 0);
    std::cout << (WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)) << std::endl;
  }
  return 0;
}

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace temper {

// A certificate that signs itself, and its key, by the command `openssl`: DIRECTORY/NAME.crt and NAME.key. Good for
// 127.0.0.1 and localhost; valid for so many days from now, or until yesterday (-1).
inline void MakeCertificate(const std::filesystem::path& directory, const std::string& name, int days = 2) {
  const std::string dates = days > 0 ? " -days " + std::to_string(days) : " -days 1 -set_serial 1";
  std::string command = "cd '" + directory.string() +
                        "' && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256"
                        " -nodes -subj /CN=" +
                        name + " -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout " + name + ".key -out " +
                        name + ".crt" + dates + " 2>/dev/null";
  if (days < 0) {
    command = "cd '" + directory.string() +
              "' && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "
              "/CN=" +
              name + " -keyout " + name + ".key -out " + name + ".csr 2>/dev/null && openssl x509 -req -in " + name +
              ".csr -signkey " + name + ".key -days -1 -out " + name + ".crt 2>/dev/null";
  }
  if (std::system(command.c_str()) != 0) throw std::runtime_error("openssl failed: " + command);
}

}  // namespace temper

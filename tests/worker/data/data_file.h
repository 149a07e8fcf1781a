// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace temper {

// A file with a given text; removed at the end.
class DataFile {
 public:
  explicit DataFile(std::string_view text) {
    std::string pattern = (std::filesystem::temp_directory_path() / "temper_data_XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    std::ofstream(uri(), std::ios::binary) << text;
  }
  ~DataFile() { std::filesystem::remove_all(directory_); }
  DataFile(const DataFile&) = delete;
  DataFile& operator=(const DataFile&) = delete;

  std::string uri() const { return (directory_ / "data.jsonl").string(); }

 private:
  std::filesystem::path directory_;
};

}  // namespace temper

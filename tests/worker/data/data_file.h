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
  explicit DataFile(std::string_view text, const std::string& name = "data.jsonl") : name_(name) {
    std::string pattern = (std::filesystem::temp_directory_path() / "temper_data_XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    std::ofstream(uri(), std::ios::binary) << text;
  }
  ~DataFile() { std::filesystem::remove_all(directory_); }
  DataFile(const DataFile&) = delete;
  DataFile& operator=(const DataFile&) = delete;

  std::string uri() const { return (directory_ / name_).string(); }
  std::string directory() const { return directory_.string(); }
  // One more file beside it.
  void Add(const std::string& name, std::string_view text) const {
    std::ofstream(directory_ / name, std::ios::binary) << text;
  }

 private:
  std::string name_;
  std::filesystem::path directory_;
};

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "common/storage/object_store.h"

namespace temper {

// An empty directory, as an object store; removed at the end.
class ModelDirectory {
 public:
  // Words separated by spaces: <unk> 0, café 1, noir 2, and the added token <end> 3.
  static constexpr char kWordTokenizer[] = R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 3, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "café": 1, "noir": 2}, "unk_token": "<unk>"}})";

  ModelDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "temper_text_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
    store_ = *ObjectStore::Open(path_.string());
  }
  ~ModelDirectory() { std::filesystem::remove_all(path_); }
  ModelDirectory(const ModelDirectory&) = delete;
  ModelDirectory& operator=(const ModelDirectory&) = delete;

  void Write(std::string_view name, std::string_view text) {
    const absl::Status written = store_->Write(name, text);
    ASSERT_TRUE(written.ok()) << written;
  }

  const ObjectStore& store() const { return *store_; }
  std::string uri() const { return store_->uri(); }

 private:
  std::filesystem::path path_;
  std::unique_ptr<ObjectStore> store_;
};

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace temper {

// A skeleton is a conversation in which placeholders stand for what the user, the system and the tools say. In
// the text that a template makes of it one sees which parts are the template's (and the assistant's) and where the
// others' words go, without having to search for those words.

// Where a placeholder stands in a rendered skeleton: the bytes [begin, end).
struct PlaceholderUse {
  size_t slot;
  size_t begin;
  size_t end;
};

class Placeholders {
 public:
  // `rendered` is what the template makes of `messages`: no placeholder occurs in it.
  Placeholders(const nlohmann::ordered_json& messages, std::string_view rendered);

  // The messages with a placeholder, numbered from 0, for every text that is not the assistant's. Equal texts have the
  // same placeholder: some templates compare messages.
  const nlohmann::ordered_json& messages() const { return messages_; }
  // The text that placeholder `slot` stands for.
  const std::string& Original(size_t slot) const { return originals_[slot]; }
  // One more placeholder, which stands for nothing yet.
  size_t spare_slot() const { return originals_.size(); }
  std::string Text(size_t slot) const;

  std::vector<PlaceholderUse> FindIn(std::string_view text) const;

 private:
  void Replace(nlohmann::ordered_json& text);

  std::string prefix_;
  nlohmann::ordered_json messages_;
  std::vector<std::string> originals_;
};

// A rendered skeleton: gap 0, placeholder 0, gap 1, placeholder 1, …, last gap.
struct Skeleton {
  std::string text;
  std::vector<PlaceholderUse> uses;

  // The gap before use `i`, or after the last one.
  size_t GapBegin(size_t i) const { return i == 0 ? 0 : uses[i - 1].end; }
  std::string_view Gap(size_t i) const {
    const size_t end = i == uses.size() ? text.size() : uses[i].begin;
    return std::string_view(text).substr(GapBegin(i), end - GapBegin(i));
  }
};

// Where each gap begins in `rendered`, the same conversation with the real texts: the gaps must be there word for word,
// and between them the texts as they are, trimmed, or escaped for JSON. Absent when they are not.
std::optional<std::vector<size_t>> AlignSkeleton(const Skeleton& skeleton, const Placeholders& placeholders,
                                                 std::string_view rendered);

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#include "worker/data/skeleton.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/data/trim.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

// Letters and digits alone: no template trims, splits or escapes them.
constexpr char kEnd = 'Z';

// What a template may make of a text, without repetitions.
std::vector<std::string> RenderedForms(const std::string& text) {
  std::vector<std::string> forms = {text, std::string(Trim(text)), std::string(TrimStart(text)),
                                    std::string(TrimEnd(text))};
  std::string quoted = Json(text).dump();
  forms.push_back(quoted.substr(1, quoted.size() - 2));
  std::vector<std::string> distinct;
  for (std::string& form : forms) {
    if (std::find(distinct.begin(), distinct.end(), form) == distinct.end()) distinct.push_back(std::move(form));
  }
  return distinct;
}

// Tries the forms of one text after another, and takes back a choice that leads nowhere.
class Aligner {
 public:
  Aligner(const Skeleton& skeleton, const Placeholders& placeholders, std::string_view rendered)
      : skeleton_(skeleton), placeholders_(placeholders), rendered_(rendered), begins_(skeleton.uses.size() + 1) {}

  std::optional<std::vector<size_t>> Run() {
    if (!Place(0, 0)) return std::nullopt;
    return std::move(begins_);
  }

 private:
  // Whether gap `i` is at `position` and all that follows fits.
  bool Place(size_t i, size_t position) {
    const std::string_view rest = rendered_.substr(position);
    const std::string_view gap = skeleton_.Gap(i);
    if (!rest.starts_with(gap)) return false;
    begins_[i] = position;
    if (i == skeleton_.uses.size()) return rest.size() == gap.size();
    if (failed_.contains({i, position})) return false;
    const std::string_view after = rest.substr(gap.size());
    for (const std::string& form : RenderedForms(placeholders_.Original(skeleton_.uses[i].slot))) {
      if (after.starts_with(form) && Place(i + 1, position + gap.size() + form.size())) return true;
    }
    failed_.insert({i, position});
    return false;
  }

  const Skeleton& skeleton_;
  const Placeholders& placeholders_;
  std::string_view rendered_;
  std::vector<size_t> begins_;
  std::set<std::pair<size_t, size_t>> failed_;
};

}  // namespace

Placeholders::Placeholders(const Json& messages, std::string_view rendered) : messages_(messages) {
  for (int attempt = 0; prefix_.empty() || rendered.find(prefix_) != std::string_view::npos; ++attempt) {
    prefix_ = absl::StrCat("Placeholder", attempt, "Q");
  }
  for (Json& message : messages_) {
    if (message["role"] == "assistant") continue;
    Json& content = message["content"];
    if (content.is_string()) Replace(content);
    if (content.is_array()) {
      for (Json& part : content) Replace(part["text"]);
    }
  }
}

void Placeholders::Replace(Json& text) {
  const auto& original = text.get_ref<const std::string&>();
  const size_t slot = std::find(originals_.begin(), originals_.end(), original) - originals_.begin();
  if (slot == originals_.size()) originals_.push_back(original);
  text = Text(slot);
}

std::string Placeholders::Text(size_t slot) const { return absl::StrCat(prefix_, slot, std::string(1, kEnd)); }

std::vector<PlaceholderUse> Placeholders::FindIn(std::string_view text) const {
  std::vector<PlaceholderUse> uses;
  for (size_t begin = text.find(prefix_); begin != std::string_view::npos; begin = text.find(prefix_, begin + 1)) {
    size_t slot = 0;
    const char* const number = text.data() + begin + prefix_.size();
    const auto [end, error] = std::from_chars(number, text.data() + text.size(), slot);
    if (error == std::errc() && end != text.data() + text.size() && *end == kEnd && slot <= spare_slot()) {
      uses.push_back({slot, begin, static_cast<size_t>(end + 1 - text.data())});
    }
  }
  return uses;
}

std::optional<std::vector<size_t>> AlignSkeleton(const Skeleton& skeleton, const Placeholders& placeholders,
                                                 std::string_view rendered) {
  return Aligner(skeleton, placeholders, rendered).Run();
}

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#include "worker/data/assistant_spans.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "worker/data/skeleton.h"
#include "worker/data/trim.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

// The end of an assistant's turn, given what the template writes behind the last message's text: up to the first
// added token if nothing but white space stands before it, else all of it without white space at the end.
std::string EndOfTurn(const Tokenizer& tokenizer, const std::string& tail) {
  const absl::StatusOr<std::vector<Token>> tokens = tokenizer.Encode(tail, /*add_special_tokens=*/false);
  if (!tokens.ok()) return "";
  for (const Token& token : *tokens) {
    if (tokenizer.IsAdded(token.id)) {
      const std::string_view before = std::string_view(tail).substr(0, token.begin);
      if (Trim(before).empty()) return tail.substr(0, token.end);
      break;
    }
  }
  return std::string(TrimEnd(tail));
}

std::string ProbeEndOfTurn(const Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  const Json messages = {{{"role", "user"}, {"content", "x"}}, {{"role", "assistant"}, {"content", "x"}}};
  const Placeholders placeholders(messages, "");
  Json probe = placeholders.messages();
  probe[1]["content"] = placeholders.Text(placeholders.spare_slot());
  const absl::StatusOr<RenderedChat> chat = chat_template.Render(probe, /*add_generation_prompt=*/false);
  if (!chat.ok()) return "";
  const std::vector<PlaceholderUse> uses = placeholders.FindIn(chat->text);
  if (uses.empty() || uses.back().slot != placeholders.spare_slot()) return "";
  return EndOfTurn(tokenizer, chat->text.substr(uses.back().end));
}

// "<think>" at the beginning of `text`, white space before it skipped; empty if there is no such tag.
std::string_view LeadingTag(std::string_view text) {
  text = TrimStart(text);
  const size_t end = text.find('>');
  if (text.empty() || text[0] != '<' || end == std::string_view::npos) return "";
  const std::string_view tag = text.substr(0, end + 1);
  for (char c : tag.substr(1, tag.size() - 2)) {
    if (!absl::ascii_isalnum(c) && c != '_' && c != ':' && c != '/') return "";
  }
  return tag;
}

// How many bytes of `turn` are an empty pair of tags (<think>\n\n</think>\n\n). The first tag may be the end of
// `prompt` instead.
size_t EmptyTags(std::string_view prompt, std::string_view turn, std::string_view content) {
  std::string_view open = LeadingTag(turn);
  std::string_view rest = turn;
  if (open.starts_with("</")) {
    prompt = TrimEnd(prompt);
    const std::string opening = absl::StrCat("<", std::string(open.substr(2)));
    open = prompt.ends_with(opening) ? prompt.substr(prompt.size() - opening.size()) : std::string_view();
  } else if (!open.empty()) {
    rest.remove_prefix(open.data() + open.size() - turn.data());
  }
  if (open.empty() || TrimStart(content).starts_with(open)) return 0;
  const std::string_view close = LeadingTag(rest);
  if (close != absl::StrCat("</", std::string(open.substr(1)))) return 0;
  rest.remove_prefix(close.data() + close.size() - rest.data());
  return turn.size() - TrimStart(rest).size();
}

// An assistant's turn in the skeleton: bytes [begin, end) of a gap.
struct Turn {
  size_t message;
  size_t gap;
  size_t begin;
  size_t end = 0;
};

// The search in one conversation.
class Search {
 public:
  Search(const ChatTemplate& chat_template, const std::string& end_of_turn, const Conversation& conversation,
         const std::string& rendered)
      : chat_template_(chat_template),
        end_of_turn_(end_of_turn),
        conversation_(conversation),
        placeholders_(conversation.messages, rendered) {}

  absl::StatusOr<std::vector<ByteSpan>> Run(const std::string& rendered) {
    std::optional<Skeleton> skeleton = Render(placeholders_.messages(), /*add_generation_prompt=*/false);
    if (!skeleton.has_value()) return Uncertain("the template treats placeholders unlike these messages");
    skeleton_ = *std::move(skeleton);
    const std::optional<std::vector<size_t>> gap_begins = AlignSkeleton(skeleton_, placeholders_, rendered);
    if (!gap_begins.has_value()) return Uncertain("the template rewrites what the user, the system or a tool says");

    std::vector<Turn> turns;
    for (size_t i = 0; i < conversation_.messages.size(); ++i) {
      if (conversation_.messages[i]["role"] != "assistant") continue;
      const std::optional<Turn> turn = Begin(i);
      if (!turn.has_value()) return Uncertain(absl::StrCat("the beginning of messages[", i, "] is not to be seen"));
      if (!turns.empty() &&
          (turn->gap < turns.back().gap || (turn->gap == turns.back().gap && turn->begin <= turns.back().begin))) {
        return Uncertain("the template changes the order of messages");
      }
      turns.push_back(*turn);
    }
    std::vector<ByteSpan> spans;
    for (size_t i = 0; i < turns.size(); ++i) {
      const bool shares_gap = i + 1 < turns.size() && turns[i + 1].gap == turns[i].gap;
      if (!SetEnd(turns[i], shares_gap ? std::optional<size_t>(turns[i + 1].begin) : std::nullopt)) {
        return Uncertain(absl::StrCat("the end of messages[", turns[i].message, "] is not to be seen"));
      }
      SkipEmptyTags(turns[i]);
      const size_t offset = (*gap_begins)[turns[i].gap];
      spans.push_back({offset + turns[i].begin, offset + turns[i].end});
    }
    return spans;
  }

 private:
  static absl::Status Uncertain(const std::string& reason) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot tell which tokens are the assistant's: ", reason,
        ". Put {% generation %} and {% endgeneration %} around the assistant's text in the chat template"));
  }

  std::optional<Skeleton> Render(const Json& messages, bool add_generation_prompt) const {
    absl::StatusOr<RenderedChat> chat = chat_template_.Render(messages, add_generation_prompt, conversation_.variables);
    if (!chat.ok()) return std::nullopt;
    Skeleton skeleton{.text = std::move(chat->text)};
    skeleton.uses = placeholders_.FindIn(skeleton.text);
    return skeleton;
  }

  // The turn of message `i`, if what `other` has between its placeholder `use - 1` and byte `end` also stands at the
  // beginning of the same gap of the skeleton.
  std::optional<Turn> After(const Skeleton& other, size_t use, size_t end, size_t i) const {
    size_t gap = 0;
    if (use > 0) {
      // Equal texts share a placeholder: the same one of its uses.
      const size_t slot = other.uses[use - 1].slot;
      const auto is_slot = [slot](const PlaceholderUse& any) { return any.slot == slot; };
      auto left = std::count_if(other.uses.begin(), other.uses.begin() + use, is_slot);
      while (left > 0 && gap < skeleton_.uses.size()) left -= is_slot(skeleton_.uses[gap++]);
      if (left > 0) return std::nullopt;
    }
    const std::string_view prompt = std::string_view(other.text).substr(other.GapBegin(use), end - other.GapBegin(use));
    if (!skeleton_.Gap(gap).starts_with(prompt)) return std::nullopt;
    return Turn{.message = i, .gap = gap, .begin = prompt.size()};
  }

  // Message `i` as a plain text, for which the spare placeholder stands; its use is `use`.
  std::optional<Skeleton> WithPlainText(size_t i, size_t& use) const {
    Json messages = placeholders_.messages();
    messages[i] = {{"role", "assistant"}, {"content", placeholders_.Text(placeholders_.spare_slot())}};
    std::optional<Skeleton> skeleton = Render(messages, /*add_generation_prompt=*/false);
    if (!skeleton.has_value()) return std::nullopt;
    for (use = 0; use < skeleton->uses.size(); ++use) {
      if (skeleton->uses[use].slot == placeholders_.spare_slot()) return skeleton;
    }
    return std::nullopt;
  }

  std::optional<Turn> Begin(size_t i) const {
    const Json& messages = placeholders_.messages();
    if (i > 0) {
      const Json before(messages.begin(), messages.begin() + i);
      const std::optional<Skeleton> prompt = Render(before, /*add_generation_prompt=*/true);
      if (prompt.has_value()) {
        const std::optional<Turn> turn = After(*prompt, prompt->uses.size(), prompt->text.size(), i);
        if (turn.has_value()) return turn;
      }
    }
    // A generation prompt that the conversation does not contain (it ends with "<think>", and thoughts were left out).
    size_t use = 0;
    const std::optional<Skeleton> plain = WithPlainText(i, use);
    if (!plain.has_value()) return std::nullopt;
    return After(*plain, use, plain->uses[use].begin, i);
  }

  // `limit`: where the next turn of the same gap begins.
  bool SetEnd(Turn& turn, std::optional<size_t> limit) const {
    const std::string_view gap = skeleton_.Gap(turn.gap);
    const std::string_view turn_and_next_header = gap.substr(turn.begin, limit.value_or(gap.size()) - turn.begin);
    if (!end_of_turn_.empty()) {
      const size_t found = turn_and_next_header.rfind(end_of_turn_);
      if (found != std::string_view::npos) {
        turn.end = turn.begin + found + end_of_turn_.size();
        return true;
      }
    }
    // The turn ends otherwise than a plain text does, or with nothing: take away what follows a plain text.
    size_t use = 0;
    const std::optional<Skeleton> plain = WithPlainText(turn.message, use);
    if (plain.has_value() && !limit.has_value()) {
      std::string_view next_header = plain->Gap(use + 1);
      if (next_header.starts_with(end_of_turn_)) next_header.remove_prefix(end_of_turn_.size());
      if (turn_and_next_header.ends_with(next_header)) {
        turn.end = turn.begin + turn_and_next_header.size() - next_header.size();
        return true;
      }
    }
    // A call that ends with a token of its own, and behind which no plain text may stand: it ends as it does in a
    // conversation that ends with it.
    const Json& messages = placeholders_.messages();
    const std::optional<Skeleton> last = Render(Json(messages.begin(), messages.begin() + turn.message + 1), false);
    if (!last.has_value()) return false;
    const std::string_view whole = TrimEnd(last->Gap(last->uses.size()));
    if (whole.size() <= turn.begin || !gap.substr(0, limit.value_or(gap.size())).starts_with(whole)) return false;
    turn.end = whole.size();
    return true;
  }

  void SkipEmptyTags(Turn& turn) const {
    const std::string_view gap = skeleton_.Gap(turn.gap);
    const Json& message = conversation_.messages[turn.message];
    const auto content = message.find("content");
    const bool is_text = content != message.end() && content->is_string();
    turn.begin += EmptyTags(gap.substr(0, turn.begin), gap.substr(turn.begin, turn.end - turn.begin),
                            is_text ? std::string_view(content->get_ref<const std::string&>()) : "");
  }

  const ChatTemplate& chat_template_;
  const std::string& end_of_turn_;
  const Conversation& conversation_;
  const Placeholders placeholders_;
  Skeleton skeleton_;
};

}  // namespace

AssistantSpanFinder::AssistantSpanFinder(const Tokenizer& tokenizer, const ChatTemplate& chat_template)
    : chat_template_(chat_template), end_of_turn_(ProbeEndOfTurn(tokenizer, chat_template)) {}

absl::StatusOr<std::vector<ByteSpan>> AssistantSpanFinder::Find(const Conversation& conversation,
                                                                const std::string& rendered) const {
  return Search(chat_template_, end_of_turn_, conversation, rendered).Run(rendered);
}

}  // namespace temper

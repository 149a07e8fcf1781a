// SPDX-License-Identifier: Apache-2.0
// Answers questions about a model's tokenizer and chat template, one JSON object a line on stdin and on stdout. Lets
// test_against_transformers.py compare with transformers.
//
//   text_probe MODEL_DIR
//   {"encode": "text"}                                       → {"ids": [...], "begins": [...], "ends": [...]}
//   {"decode": [ids]}                                        → {"text": "..."}
//   {"render": messages, "template": "...", "add_generation_prompt": bool, "variables": {...}}
//                                                            → {"text": "...", "spans": [[begin, end], ...]}
//   {"vocabulary": true}                                     → {"size": n, "max_id": n}
// A failure is {"error": "..."}. Without "template" the model's own serves.

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "common/storage/object_store.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

Json Error(const absl::Status& status) { return {{"error", status.message()}}; }

Json Encode(const Tokenizer& tokenizer, const Json& question) {
  absl::StatusOr<std::vector<Token>> tokens =
      tokenizer.Encode(question["encode"].get<std::string>(), question.value("add_special_tokens", false));
  if (!tokens.ok()) return Error(tokens.status());
  Json answer = {{"ids", Json::array()}, {"begins", Json::array()}, {"ends", Json::array()}};
  for (const Token& token : *tokens) {
    answer["ids"].push_back(token.id);
    answer["begins"].push_back(token.begin);
    answer["ends"].push_back(token.end);
  }
  return answer;
}

Json Decode(const Tokenizer& tokenizer, const Json& question) {
  absl::StatusOr<std::string> text = tokenizer.Decode(question["decode"].get<std::vector<uint32_t>>());
  return text.ok() ? Json{{"text", *text}} : Error(text.status());
}

Json Render(const ObjectStore& model, const Json& question) {
  constexpr int64_t kNow = 0;
  absl::StatusOr<ChatTemplate> chat_template =
      question.contains("template")
          ? ChatTemplate::Compile(question["template"].get<std::string>(), Json::object(), "the question", kNow)
          : ChatTemplate::Open(model, kNow);
  if (!chat_template.ok()) return Error(chat_template.status());
  absl::StatusOr<RenderedChat> chat = chat_template->Render(
      question["render"], question.value("add_generation_prompt", false), question.value("variables", Json::object()));
  if (!chat.ok()) return Error(chat.status());
  Json spans = Json::array();
  for (const ByteSpan& span : chat->generation_spans) spans.push_back({span.begin, span.end});
  return {{"text", chat->text}, {"spans", spans}};
}

int Run(const char* directory) {
  absl::StatusOr<std::unique_ptr<ObjectStore>> model = ObjectStore::Open(directory);
  absl::StatusOr<Tokenizer> tokenizer = model.ok() ? Tokenizer::Open(**model) : model.status();
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const Json question = Json::parse(line);
    Json answer;
    if (question.contains("encode")) {
      answer = Encode(*tokenizer, question);
    } else if (question.contains("decode")) {
      answer = Decode(*tokenizer, question);
    } else if (question.contains("render")) {
      answer = Render(**model, question);
    } else {
      answer = {{"size", tokenizer->vocab_size()}, {"max_id", tokenizer->max_id()}};
    }
    std::cout << answer.dump() << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: text_probe MODEL_DIR\n";
    return 2;
  }
  return temper::Run(argv[1]);
}

// SPDX-License-Identifier: Apache-2.0
// Turns samples, one a line on stdin, into tokens and loss masks, one {"ids": […], "scored": […]} or {"error": "…"} a
// line on stdout. Lets test_chat_examples.py compare with transformers.
//
//   data_probe MODEL_DIR

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "common/storage/object_store.h"
#include "worker/data/chat_example.h"

namespace temper {
namespace {

absl::Status Run(const char* directory) {
  absl::StatusOr<std::unique_ptr<ObjectStore>> model = ObjectStore::Open(directory);
  if (!model.ok()) return model.status();
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Open(**model);
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<ChatTemplate> chat_template = ChatTemplate::Open(**model, /*now=*/0);
  if (!chat_template.ok()) return chat_template.status();
  const ChatExampleBuilder builder(*tokenizer, *chat_template);
  for (std::string line; std::getline(std::cin, line);) {
    absl::StatusOr<Conversation> conversation = ParseConversation(line, "stdin");
    absl::StatusOr<ChatExample> example =
        conversation.ok() ? builder.Build(*conversation) : absl::StatusOr<ChatExample>(conversation.status());
    const nlohmann::json answer = example.ok() ? nlohmann::json{{"ids", example->ids}, {"scored", example->scored}}
                                               : nlohmann::json{{"error", std::string(example.status().message())}};
    std::cout << answer.dump() << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: data_probe MODEL_DIR\n";
    return 2;
  }
  const absl::Status status = temper::Run(argv[1]);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

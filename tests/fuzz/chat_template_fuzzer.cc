// SPDX-License-Identifier: Apache-2.0
// A template, a NUL, and the messages as JSON.
#include <nlohmann/json.hpp>
#include <string>

#include "tests/fuzz/fuzz_input.h"
#include "worker/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = temper::FuzzText(data, size);
  const size_t border = text.find('\0');
  const auto compiled =
      temper::ChatTemplate::Compile(text.substr(0, border), {{"bos_token", "<s>"}, {"eos_token", "</s>"}}, "fuzz", 0);
  if (!compiled.ok()) return 0;
  const std::string_view json = border == std::string_view::npos ? "" : text.substr(border + 1);
  auto messages = nlohmann::ordered_json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (messages.is_discarded()) messages = {{{"role", "user"}, {"content", "Hello"}}};
  for (const bool prompt : {false, true}) {
    const auto chat = compiled->Render(messages, prompt);
    if (!chat.ok()) continue;
    for (const temper::ByteSpan& span : chat->generation_spans) {
      temper::Require(span.begin <= span.end && span.end <= chat->text.size());
    }
  }
  return 0;
}

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace temper {

// Special tokens of all templates under tests/worker/text/templates; ids from 1 on.
inline const std::vector<std::string> kSpecialTokens = {
    "<s>",           "</s>",    "<|im_start|>", "<|im_end|>",      "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>",    "[INST]",  "[/INST]",      "<start_of_turn>", "<end_of_turn>",       "<|User|>",
    "<|Assistant|>", "<think>", "</think>",     "<tool_call>",     "</tool_call>",        "<|endoftext|>"};

// Every character is a token (id 0), beside the special ones: one sees to the letter what is scored.
inline Tokenizer CharacterTokenizer() {
  nlohmann::json added = nlohmann::json::array();
  for (size_t i = 0; i < kSpecialTokens.size(); ++i) {
    added.push_back({{"id", i + 1},
                     {"content", kSpecialTokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  nlohmann::json tokenizer = {
      {"version", "1.0"},
      {"added_tokens", added},
      {"pre_tokenizer",
       {{"type", "Split"}, {"pattern", {{"Regex", "(?m:.)"}}}, {"behavior", "Isolated"}, {"invert", false}}},
      {"model", {{"type", "WordLevel"}, {"vocab", {{"<unk>", 0}}}, {"unk_token", "<unk>"}}}};
  return *Tokenizer::FromJson(tokenizer.dump(), "test");
}

inline ChatTemplate CompileTemplate(const std::string& source) {
  return *ChatTemplate::Compile(source, {{"bos_token", "<s>"}, {"eos_token", "</s>"}}, "test", 0);
}

// tests/worker/text/templates/NAME.jinja
inline ChatTemplate TestTemplate(const std::string& name) {
  std::ifstream file(std::string(TEMPLATE_DIRECTORY "/") + name + ".jinja");
  std::stringstream source;
  source << file.rdbuf();
  EXPECT_FALSE(source.str().empty()) << name;
  return CompileTemplate(source.str());
}

}  // namespace temper

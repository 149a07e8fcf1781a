// SPDX-License-Identifier: Apache-2.0
#include "worker/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/text/model_directory.h"

namespace temper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

const Json kMessages = Json::parse(R"([{"role": "user", "content": "né"}, {"role": "assistant", "content": "yes"}])");

std::string RenderWith(const ModelDirectory& model, const Json& variables = Json::object()) {
  absl::StatusOr<ChatTemplate> chat_template = ChatTemplate::Open(model.store(), 0);
  if (!chat_template.ok()) return chat_template.status().ToString();
  absl::StatusOr<RenderedChat> chat = chat_template->Render(kMessages, true, variables);
  return chat.ok() ? chat->text : chat.status().ToString();
}

TEST(ChatTemplate, Open_JinjaFile_ComesBeforeTheConfig) {
  ModelDirectory model;
  model.Write("chat_template.jinja", "{{ bos_token }}jinja {{ messages[0].content }} {{ add_generation_prompt }}");
  model.Write("tokenizer_config.json", R"({"chat_template": "config", "bos_token": {"content": "<s>"}})");
  EXPECT_EQ(RenderWith(model), "<s>jinja né True");
}

TEST(ChatTemplate, Open_ConfigHasAText_UsesIt) {
  ModelDirectory model;
  model.Write("tokenizer_config.json", R"({"chat_template": "{{ eos_token }}|{{ tools }}", "eos_token": "</s>"})");
  EXPECT_EQ(RenderWith(model), "</s>|None");
}

TEST(ChatTemplate, Open_ConfigHasAList_ToolsChooseToolUse) {
  ModelDirectory model;
  model.Write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "plain"},
      {"name": "tool_use", "template": "{{ tools | tojson }}"}]})");
  EXPECT_EQ(RenderWith(model), "plain");
  EXPECT_EQ(RenderWith(model, Json::parse(R"({"tools": [{"name": "f", "a": 1}]})")), R"([{"name": "f", "a": 1}])");
}

TEST(ChatTemplate, Open_OtherPlaces_AreFound) {
  ModelDirectory processor;
  processor.Write("chat_template.json", R"({"chat_template": "processor {{ unk_token }}"})");
  processor.Write("special_tokens_map.json", R"({"unk_token": "<unk>"})");
  EXPECT_EQ(RenderWith(processor), "processor <unk>");

  ModelDirectory several;
  several.Write("chat_template.jinja", "plain");
  several.Write("additional_chat_templates/tool_use.jinja", "tools");
  EXPECT_EQ(RenderWith(several, {{"tools", Json::array()}}), "tools");
}

TEST(ChatTemplate, Open_NoTemplate_SaysWhereItWasLookedFor) {
  ModelDirectory model;
  absl::Status status = ChatTemplate::Open(model.store(), 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no chat template in " + model.uri()));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("chat_template.jinja, `chat_template` in tokenizer_config.json and"));
}

TEST(ChatTemplate, Open_NoDefault_NamesTheOthers) {
  ModelDirectory model;
  model.Write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})");
  EXPECT_THAT(RenderWith(model), HasSubstr("are named rag, and none is named default"));
}

TEST(ChatTemplate, Open_WrongType_NamesTheField) {
  ModelDirectory model;
  model.Write("tokenizer_config.json", R"({"chat_template": 7})");
  EXPECT_THAT(RenderWith(model), HasSubstr("/tokenizer_config.json is neither a text nor a list"));
}

TEST(ChatTemplate, Compile_SyntaxError_NamesTheLine) {
  absl::Status status = ChatTemplate::Compile("a\n{% for %}", Json::object(), "t.jinja", 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 2 of the template"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("it is t.jinja"));
}

TEST(ChatTemplate, Render_TemplateRefuses_GivesItsWords) {
  absl::StatusOr<ChatTemplate> chat_template =
      ChatTemplate::Compile("{{ raise_exception('roles must alternate') }}", Json::object(), "t.jinja", 0);
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  absl::Status status = chat_template->Render(kMessages, false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("refuses this conversation: roles must alternate (line 1 of the template)"));
}

TEST(ChatTemplate, Render_GenerationTags_GiveByteSpans) {
  absl::StatusOr<ChatTemplate> chat_template = ChatTemplate::Compile(
      "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}.{% endgeneration %}"
      "{% else %}{{ m.content }}:{% endif %}{% endfor %}",
      Json::object(), "t.jinja", 0);
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  EXPECT_TRUE(chat_template->HasGenerationTags());
  absl::StatusOr<RenderedChat> chat = chat_template->Render(kMessages, false);
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ(chat->text, "né:yes.");
  EXPECT_THAT(chat->generation_spans, ElementsAre(ByteSpan{4, 8}));
}

}  // namespace
}  // namespace temper

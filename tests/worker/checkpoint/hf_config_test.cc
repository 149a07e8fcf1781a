// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/hf_config.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

TEST(ExportConfig, UnknownKeysAndTheirOrder_AreKept) {
  const Json source =
      Json::parse(R"({"zeta": [1, null], "architectures": ["X"], "torch_dtype": "float16", "a": 1e-05})");
  const Json exported = ExportConfig(source, "bfloat16");
  EXPECT_EQ(exported.dump(),
            R"({"zeta":[1,null],"architectures":["X"],"torch_dtype":"float16","a":1e-05,"dtype":"float16"})");
}

TEST(ExportConfig, DtypeAbsent_IsThatOfTheWeights) {
  const Json exported = ExportConfig(Json::object(), "bfloat16");
  EXPECT_EQ(exported["dtype"], "bfloat16");
  EXPECT_EQ(exported["torch_dtype"], "bfloat16");
}

TEST(ExportConfig, QuantizationConfig_IsDropped) {
  EXPECT_FALSE(
      ExportConfig({{"quantization_config", {{"quant_method", "mxfp4"}}}}, "bfloat16").contains("quantization_config"));
}

TEST(DeriveGenerationConfig, TokenIds_AreTakenOver) {
  const Json config = Json::parse(R"({"eos_token_id": [2, 7], "bos_token_id": 1, "pad_token_id": null, "x": 1})");
  EXPECT_EQ(DeriveGenerationConfig(config).dump(),
            R"({"_from_model_config":true,"bos_token_id":1,"eos_token_id":[2,7]})");
}

}  // namespace
}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/load_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/checkpoint/tiny_checkpoint.h"

namespace temper {
namespace {

using ::testing::HasSubstr;

class LoadWeightsTest : public ::testing::Test {
 protected:
  absl::Status Load(const NamedTensors& tensors, TinyModel& model) {
    WriteRepository(directory_.path(), tensors);
    absl::StatusOr<std::unique_ptr<HfRepository>> repository = HfRepository::Open(directory_.path().string());
    if (!repository.ok()) return repository.status();
    return LoadWeights(**repository, TinyFamily(), model.config, model.views);
  }

  std::string Refused(const NamedTensors& tensors, bool tied = false) {
    TinyModel model(tied);
    const absl::Status status = Load(tensors, model);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    for (const WeightView& view : model.views) {
      EXPECT_EQ(LoadMaster(view).abs().sum().item<float>(), 0) << "stored although refused";
    }
    return std::string(status.message());
  }

  TemporaryDirectory directory_;
};

at::Tensor& At(NamedTensors& tensors, std::string_view name) {
  for (auto& [key, tensor] : tensors) {
    if (key == name) return tensor;
  }
  throw std::out_of_range(std::string(name));
}

void Erase(NamedTensors& tensors, std::string_view name) {
  std::erase_if(tensors, [&](const auto& tensor) { return tensor.first == name; });
}

TEST_F(LoadWeightsTest, EveryView_GetsItsRows) {
  for (at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
    TinyModel model(/*tied=*/false, compute);
    NamedTensors tensors = TinyTensors(/*with_head=*/true, at::kFloat);
    ASSERT_TRUE(Load(tensors, model).ok());
    const at::Tensor qkv = At(tensors, "layers.1.qkv.weight");
    EXPECT_TRUE(at::equal(LoadMaster(model.views[0]), At(tensors, "embed_tokens.weight")));
    EXPECT_TRUE(at::equal(LoadMaster(model.views[4]), qkv.narrow(0, 0, 4)));
    EXPECT_TRUE(at::equal(LoadMaster(model.views[5]), qkv.narrow(0, 4, 2)));
    EXPECT_TRUE(at::equal(LoadMaster(model.views[6]), qkv.narrow(0, 6, 2)));
    EXPECT_TRUE(at::equal(LoadMaster(model.views[8]), At(tensors, "lm_head.weight")));
    // Padding rows stay zero.
    EXPECT_EQ(model.views[0].parameter->weight.narrow(0, 6, 2).abs().sum().item<float>(), 0);
  }
}

TEST_F(LoadWeightsTest, TiedHead_AbsentOrEqual_IsTaken) {
  TinyModel model(/*tied=*/true);
  NamedTensors tensors = TinyTensors(/*with_head=*/false);
  EXPECT_TRUE(Load(tensors, model).ok());
  tensors.push_back({"lm_head.weight", At(tensors, "embed_tokens.weight")});
  EXPECT_TRUE(Load(tensors, model).ok());
  At(tensors, "lm_head.weight") = At(tensors, "embed_tokens.weight").to(at::kFloat);
  EXPECT_TRUE(Load(tensors, model).ok());
}

TEST_F(LoadWeightsTest, TiedHead_Different_IsRefused) {
  EXPECT_THAT(Refused(TinyTensors(/*with_head=*/true), /*tied=*/true),
              HasSubstr("lm_head.weight and embed_tokens.weight differ"));
}

TEST_F(LoadWeightsTest, MissingSurplusAndMisshapen_AreAllNamed) {
  NamedTensors tensors = TinyTensors(/*with_head=*/true);
  Erase(tensors, "norm.weight");
  tensors.push_back({"layers.2.qkv.weight", at::ones({8, 4})});
  At(tensors, "layers.0.qkv.weight") = at::ones({4, 8});
  const std::string message = Refused(tensors);
  EXPECT_THAT(message, HasSubstr(directory_.path().string()));
  EXPECT_THAT(message, HasSubstr("tensors missing: norm.weight"));
  EXPECT_THAT(message, HasSubstr("does not have: layers.2.qkv.weight"));
  EXPECT_THAT(message, HasSubstr("layers.0.qkv.weight is [4, 8] instead of [8, 4]"));
}

TEST_F(LoadWeightsTest, HeadMissing_AdvisesToTie) {
  EXPECT_THAT(Refused(TinyTensors(/*with_head=*/false)), HasSubstr("\"tie_word_embeddings\": true"));
}

TEST_F(LoadWeightsTest, DtypeThatCannotBeTrained_IsRefused) {
  NamedTensors tensors = TinyTensors(/*with_head=*/true);
  At(tensors, "norm.weight") = at::ones({4}, at::kDouble);
  At(tensors, "layers.0.qkv.weight") = at::ones({8, 4}, at::kLong);
  EXPECT_THAT(Refused(tensors), HasSubstr("layers.0.qkv.weight (I64), norm.weight (F64)"));
}

}  // namespace
}  // namespace temper

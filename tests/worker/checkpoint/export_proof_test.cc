// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/export_proof.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/storage/publication.h"
#include "tests/worker/checkpoint/tiny_checkpoint.h"
#include "worker/checkpoint/hf_export.h"
#include "worker/checkpoint/load_weights.h"

namespace temper {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// An export of a model that was trained a little, read back after something happened to it.
class ExportProofTest : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  ExportProofTest() : model_(/*tied=*/false) {
    WriteRepository(directory_.path() / "source", TinyTensors(/*with_head=*/true, GetParam()));
    source_ = *HfRepository::Open((directory_.path() / "source").string());
    EXPECT_TRUE(LoadWeights(*source_, TinyFamily(), model_.config, model_.views).ok());
    for (const WeightView& view : model_.views) StoreMaster(view, LoadMaster(view) * 1.2345f);
    store_ = *ObjectStore::Open(directory_.path().string());
    auto publication = *Publication::Begin(*store_, "export", "job", 1);
    EXPECT_TRUE(
        ExportModel(*source_, TinyFamily(), model_.config, model_.views, {.max_shard_size = 150}, *publication).ok());
    EXPECT_TRUE(publication->Commit().ok());
  }

  absl::StatusOr<ExportProof> Prove() {
    return ProveExport(*store_, "export", *source_, TinyFamily(), model_.config, model_.views);
  }

  // Flips one bit of a stored tensor.
  void Corrupt(const std::string& name, int64_t byte) {
    const auto exported = *HfRepository::Open((directory_.path() / "export").string());
    const RepositoryTensor& tensor = *exported->FindTensor(name);
    std::fstream file(directory_.path() / "export" / exported->weight_files()[tensor.file],
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(tensor.entry.begin + byte);
    const char flipped = static_cast<char>(file.get() ^ 1);
    file.seekp(tensor.entry.begin + byte);
    file.put(flipped);
  }

  TemporaryDirectory directory_;
  TinyModel model_;
  std::unique_ptr<HfRepository> source_;
  std::unique_ptr<ObjectStore> store_;
};

TEST_P(ExportProofTest, SoundExport_IsProved) {
  const absl::StatusOr<ExportProof> proof = Prove();
  ASSERT_TRUE(proof.ok()) << proof.status();
  EXPECT_TRUE(proof->passed()) << proof->ToJson();
  EXPECT_EQ(proof->tensors, 6);
  EXPECT_EQ(proof->elements, 24 + 2 + 32 + 32 + 4 + 24);
  EXPECT_EQ(proof->ToJson()["passed"], true);
}

TEST_P(ExportProofTest, OneBitOff_NamesTensorAndElement) {
  const int64_t element_size = GetParam() == at::kFloat ? 4 : 2;
  Corrupt("layers.1.qkv.weight", 17 * element_size);  // a row of k
  const ExportProof proof = *Prove();
  EXPECT_FALSE(proof.passed());
  ASSERT_EQ(proof.differences.size(), 1);
  EXPECT_EQ(proof.differences[0].tensor, "layers.1.qkv.weight");
  EXPECT_EQ(proof.differences[0].elements, 1);
  EXPECT_EQ(proof.differences[0].first_element, 17);
  EXPECT_NE(proof.differences[0].stored, proof.differences[0].expected);
  EXPECT_EQ(proof.ToJson()["differences"][0]["first_element"], 17);
}

TEST_P(ExportProofTest, ChangedMaster_IsSeen) {
  StoreMaster(model_.views[2], LoadMaster(model_.views[2]) + 1.0f);
  EXPECT_EQ(Prove()->differences.at(0).elements, 8);
}

TEST_P(ExportProofTest, DerivedTensorOff_IsSeen) {
  Corrupt("layers.0.inv_freq", 0);
  EXPECT_EQ(Prove()->differences.at(0).tensor, "layers.0.inv_freq");
}

TEST_P(ExportProofTest, WholeFileMissingOrDamaged_IsAnError) {
  const auto exported = *HfRepository::Open((directory_.path() / "export").string());
  ASSERT_GT(exported->weight_files().size(), 1);
  const fs::path file = directory_.path() / "export" / exported->weight_files().back();
  fs::resize_file(file, fs::file_size(file) - 1);
  EXPECT_EQ(Prove().status().code(), absl::StatusCode::kDataLoss);
  fs::remove(file);
  EXPECT_EQ(Prove().status().code(), absl::StatusCode::kNotFound);
}

TEST_P(ExportProofTest, TensorMissingOrOfAnotherKind_IsAnError) {
  fs::remove(directory_.path() / "export/model.safetensors.index.json");
  NamedTensors tensors = TinyTensors(/*with_head=*/false, GetParam());
  WriteFile(directory_.path() / "export/model.safetensors", SafetensorsBytes(tensors));
  EXPECT_THAT(std::string(Prove().status().message()), HasSubstr("lacks tensor lm_head.weight"));
  tensors[0].second = at::ones({6, 4}, at::kDouble);
  WriteFile(directory_.path() / "export/model.safetensors", SafetensorsBytes(tensors));
  EXPECT_THAT(std::string(Prove().status().message()), HasSubstr("embed_tokens.weight is F64 instead of"));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ExportProofTest, ::testing::Values(at::kBFloat16, at::kHalf, at::kFloat),
                         [](const auto& info) { return std::string(at::toString(info.param)); });

}  // namespace
}  // namespace temper

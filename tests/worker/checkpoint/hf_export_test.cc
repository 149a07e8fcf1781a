// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/hf_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/failure.h"
#include "tests/worker/checkpoint/tiny_checkpoint.h"
#include "worker/checkpoint/load_weights.h"

namespace temper {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class HfExportTest : public ::testing::Test {
 protected:
  void Open(const NamedTensors& tensors, TinyModel& model) {
    WriteRepository(source_path_, tensors);
    source_ = *HfRepository::Open(source_path_.string());
    ASSERT_TRUE(LoadWeights(*source_, TinyFamily(), model.config, model.views).ok());
    store_ = *ObjectStore::Open(directory_.path().string());
    publication_ = *Publication::Begin(*store_, "export", "job", 1);
  }

  absl::Status Export(const TinyModel& model, int64_t max_shard_size = 1 << 30) {
    return ExportModel(*source_, TinyFamily(), model.config, model.views, {.max_shard_size = max_shard_size},
                       *publication_);
  }

  TemporaryDirectory directory_;
  const fs::path source_path_ = directory_.path() / "source";
  const fs::path export_path_ = directory_.path() / "export";
  std::unique_ptr<HfRepository> source_;
  std::unique_ptr<ObjectStore> store_;
  std::unique_ptr<Publication> publication_;
};

TEST_F(HfExportTest, Untouched_FusedTiedAndDerived_IsByteIdentical) {
  for (at::ScalarType dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
    TinyModel model(/*tied=*/true);
    NamedTensors tensors = TinyTensors(/*with_head=*/false, dtype);
    tensors.push_back({"lm_head.weight", tensors[0].second});
    Open(tensors, model);
    ASSERT_TRUE(Export(model).ok());
    ASSERT_TRUE(publication_->Commit().ok());
    const auto exported = *HfRepository::Open(export_path_.string());
    ASSERT_EQ(exported->tensors().size(), tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      const RepositoryTensor& tensor = exported->tensors()[i];
      EXPECT_EQ(tensor.entry.name, tensors[i].first);  // the source's order
      EXPECT_EQ(BytesOf(*exported->Tensor(tensor)), BytesOf(*source_->Tensor(*source_->FindTensor(tensor.entry.name))));
    }
    fs::remove_all(export_path_);
  }
}

TEST_F(HfExportTest, Trained_TiedCopy_FollowsTheEmbedding) {
  TinyModel model(/*tied=*/true);
  NamedTensors tensors = TinyTensors(/*with_head=*/false);
  tensors.push_back({"lm_head.weight", tensors[0].second});
  Open(tensors, model);
  StoreMaster(model.views[0], at::full({6, 4}, 3.0f));
  ASSERT_TRUE(Export(model).ok());
  ASSERT_TRUE(publication_->Commit().ok());
  const auto exported = *HfRepository::Open(export_path_.string());
  EXPECT_TRUE(
      at::equal(*exported->Tensor(*exported->FindTensor("lm_head.weight")), at::full({6, 4}, 3.0f).to(at::kBFloat16)));
}

TEST_F(HfExportTest, SmallShards_AreCutAtTheLimitAndIndexed) {
  TinyModel model(/*tied=*/false);
  Open(TinyTensors(/*with_head=*/true), model);
  ASSERT_TRUE(Export(model, 70).ok());  // 48 + 8, 64, 64 and 16 + 48 bytes
  ASSERT_TRUE(publication_->Commit().ok());
  EXPECT_FALSE(fs::exists(export_path_ / "model.safetensors"));
  const auto exported = *HfRepository::Open(export_path_.string());
  EXPECT_EQ(exported->weight_files().front(), "model-00001-of-00004.safetensors");
  EXPECT_EQ(exported->index_metadata()["total_size"], 48 + 8 + 64 + 64 + 16 + 48);
}

TEST_F(HfExportTest, ValueThatTheSourcesDtypeCannotHold_IsRefused) {
  TinyModel model(/*tied=*/false);
  Open(TinyTensors(/*with_head=*/true, at::kHalf), model);
  StoreMaster(model.views[0], at::full({6, 4}, 70000.0f));
  const absl::Status status = Export(model);
  EXPECT_EQ(CauseOf(status), FailureCause::kNumerics);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor embed_tokens.weight holds values that F16"));
}

TEST_F(HfExportTest, DiskFull_LeavesNothing) {
  TinyModel model(/*tied=*/false);
  Open(TinyTensors(/*with_head=*/true), model);
  fs::create_directories(export_path_);
  fs::create_symlink("/dev/full", export_path_ / "model.safetensors.temper-partial");
  const absl::Status status = Export(model);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(CauseOf(status), FailureCause::kStorage);
  EXPECT_THAT(std::string(status.message()), HasSubstr("No space left on device"));
  publication_.reset();
  EXPECT_FALSE(fs::exists(export_path_));
}

}  // namespace
}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/weight_files.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/failure.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/parallel/agree.h"

namespace temper {
namespace {

// That are converted, checked, digested and copied while they are in the processor's cache. ATen converts so many in
// the thread that asks: the others are busy sending.
constexpr int64_t kChunkElements = 1 << 15;

// In one pass over the bits of a 16-bit float: at::isinf takes several.
bool HasInfinity(const at::Tensor& stored) {
  if (stored.element_size() != sizeof(uint16_t)) return at::isinf(stored).any().item<bool>();
  const uint16_t infinity = stored.scalar_type() == at::kHalf ? 0x7c00 : 0x7f80;
  const std::span bits(static_cast<const uint16_t*>(stored.const_data_ptr()), stored.numel());
  uint16_t found = 0;  // as wide as the bits, for the vectorizer
  for (const uint16_t value : bits) found |= (value & 0x7fff) == infinity;
  return found != 0;
}

absl::Status WritePiece(const ExportedTensor& tensor, const at::Tensor& master, PublishedFile& file) {
  const at::ScalarType dtype = *SafetensorsScalarType(tensor.entry.dtype);
  const at::Tensor masters = master.view(-1);
  const at::Tensor here = masters.is_cpu() ? masters : masters.to(dtype).cpu();  // a GPU sends what is stored
  for (int64_t first = 0; first < masters.numel(); first += kChunkElements) {
    const int64_t count = std::min(kChunkElements, masters.numel() - first);
    const at::Tensor stored = here.narrow(0, first, count).to(dtype);
    if (dtype != at::kFloat && HasInfinity(stored) &&
        (at::isinf(stored) & ~at::isinf(masters.narrow(0, first, count).cpu())).any().item<bool>()) {
      return WithCause(
          absl::InvalidArgumentError(absl::StrCat(
              "tensor ", tensor.entry.name, " holds values that ", tensor.entry.dtype,
              ", the dtype that the source has it in, can't represent: train from a BF16 or F32 checkpoint")),
          FailureCause::kNumerics);
    }
    if (absl::Status status = file.Write(BytesOf(stored)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// Writes a file of the export, a piece at a time. All ranks go through the pieces, which come together on one of them,
// the writer. Whatever fails there, its error waits until Finish(): others can't know of it.
class FileWriter {
 public:
  FileWriter(const HfRepository& source, const WeightFile& weights, const TensorMap& map, ProcessGroup* ranks,
             int writer)
      : source_(source), weights_(weights), ranks_(ranks), writer_(writer) {
    for (const ExportedTensor* tensor : weights.tensors) {
      if (tensor->verbatim != nullptr) {
        steps_.push_back({tensor, {}});
        continue;
      }
      (void)map.ForEachPiece(*tensor->binding, [&](const TensorPiece& piece) {
        steps_.push_back({tensor, piece});
        return absl::OkStatus();
      });
    }
  }

  void Begin(PublishedFolder folder) {
    if (!is_writer()) return;
    auto file = folder.Create(weights_.name);
    if (!file.ok()) {
      status_ = file.status();
      return;
    }
    file_ = *std::move(file);
    std::vector<SafetensorsEntry> entries;
    for (const ExportedTensor* tensor : weights_.tensors) entries.push_back(tensor->entry);
    std::map<std::string, std::string> metadata = weights_.metadata;
    metadata["format"] = "pt";  // transformers insists on it
    status_ = file_->Write(BuildSafetensorsHeader(entries, metadata));
  }

  bool at_end() const { return next_ == steps_.size() || (ranks_ == nullptr && !status_.ok()); }

  // A piece is on its way to the writer; then it is written there.
  void StartPiece() {
    if (steps_[next_].tensor->verbatim == nullptr) pending_ = steps_[next_].piece.StartLoad(ranks_, writer_);
  }
  void FinishPiece() {
    const ExportedTensor& tensor = *steps_[next_++].tensor;
    if (tensor.verbatim == nullptr) {
      const at::Tensor master = pending_.Wait();
      if (is_writer() && status_.ok()) status_ = WritePiece(tensor, master, *file_);
      return;
    }
    if (!is_writer() || !status_.ok()) return;
    const absl::StatusOr<at::Tensor> values = source_.Tensor(*tensor.verbatim);
    status_ = values.ok() ? file_->Write(BytesOf(*values)) : values.status();
    source_.Release(*tensor.verbatim);
  }

  absl::Status Finish() {
    if (file_ != nullptr && status_.ok()) status_ = file_->Close();
    file_.reset();
    return status_;
  }

 private:
  struct Step {
    const ExportedTensor* tensor;
    TensorPiece piece;  // of what is not verbatim
  };

  bool is_writer() const { return ranks_ == nullptr || ranks_->rank() == writer_; }

  const HfRepository& source_;
  const WeightFile& weights_;
  ProcessGroup* const ranks_;
  const int writer_;
  std::vector<Step> steps_;
  size_t next_ = 0;
  PendingPiece pending_;
  std::unique_ptr<PublishedFile> file_;
  absl::Status status_;
};

}  // namespace

absl::Status WriteWeightFiles(const HfRepository& source, const std::vector<WeightFile>& files, const TensorMap& map,
                              ProcessGroup* ranks, PublishedFolder folder) {
  const size_t at_a_time = ranks == nullptr ? 1 : ranks->size();
  for (size_t first = 0; first < files.size(); first += at_a_time) {
    std::vector<std::unique_ptr<FileWriter>> writers;
    for (size_t i = first; i < std::min(first + at_a_time, files.size()); ++i) {
      writers.push_back(std::make_unique<FileWriter>(source, files[i], map, ranks, static_cast<int>(i - first)));
      writers.back()->Begin(folder);
    }
    std::vector<FileWriter*> open;
    do {
      open.clear();
      for (const auto& writer : writers) {
        if (!writer->at_end()) open.push_back(writer.get());
      }
      for (FileWriter* writer : open) writer->StartPiece();
      for (FileWriter* writer : open) writer->FinishPiece();
    } while (!open.empty());
    absl::Status status;
    for (const auto& writer : writers) status.Update(writer->Finish());
    if (absl::Status all = Agree(status, ranks); !all.ok()) return all;
  }
  return absl::OkStatus();
}

}  // namespace temper

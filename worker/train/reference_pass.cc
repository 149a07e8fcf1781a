// SPDX-License-Identifier: Apache-2.0
#include "worker/train/reference_pass.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/counted.h"
#include "common/digest.h"
#include "common/storage/job_layout.h"
#include "common/storage/publication.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/data/packed_row.h"
#include "worker/parallel/agree.h"
#include "worker/train/train_step.h"

namespace temper {
namespace {

constexpr char kFile[] = "logprobs.safetensors";
constexpr char kDigest[] = "digest";
constexpr char kTraining[] = "training", kValidation[] = "validation";
constexpr size_t kGatheredAtOnce = size_t{1} << 20;

template <typename T>
void Update(Sha256& digest, absl::Span<const T> values) {
  const auto size = static_cast<int64_t>(values.size());
  digest.Update({reinterpret_cast<const char*>(&size), sizeof(size)});
  digest.Update({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
}

std::string DigestOf(const TrainJob& job, TrainingData& data) {
  Sha256 digest;
  for (const std::string& uri : {job.model_uri, job.lora ? job.lora->adapter : std::string()}) {
    Update(digest, absl::MakeConstSpan(uri.data(), uri.size()));
  }
  const SampleSet& samples = data.batches().samples();
  for (int64_t sample = 0; sample < samples.size(); ++sample) {
    for (int i = 0; i < samples.documents_per_sample(); ++i) {
      const auto& [ids, scored] = samples.document(sample, i);
      Update(digest, ids);
      Update(digest, scored);
    }
  }
  if (!data.validation()) return digest.Hex();
  for (const MicroBatch& row : data.validation()->rows) {
    Update(digest, absl::MakeConstSpan(row.tokens_T));
    Update(digest, absl::MakeConstSpan(row.loss_mask_T));
    Update(digest, absl::MakeConstSpan(row.document_starts));
  }
  return digest.Hex();
}

// Samples of rows, in the order of the data.
std::vector<std::vector<int64_t>> RowsInOrder(const SampleSet& samples, int64_t capacity) {
  std::vector<std::vector<int64_t>> rows;
  int64_t room = 0;
  for (int64_t sample = 0; sample < samples.size(); ++sample) {
    const int64_t length = samples.length(sample);
    if (length > room) {
      rows.emplace_back();
      room = capacity;
    }
    rows.back().push_back(sample);
    room -= length;
  }
  return rows;
}

// Log-probabilities of the rows' scored tokens, one row's after the other's; each rank computes its share.
template <typename RowFn>
absl::StatusOr<std::vector<float>> Logprobs(const Gang& gang, TrainableModel& model, size_t rows, RowFn row,
                                            const StopSignal& stop) {
  std::vector<double> all;  // with zeros for the rows of others
  for (size_t first = 0; first < rows; first += gang.size()) {
    const size_t mine = first + gang.rank();
    const at::Tensor logprobs_S = ScoredLogprobs(model, mine < rows ? row(mine) : MicroBatch{});
    const at::Tensor doubles_S = logprobs_S.to(at::kCPU, at::kDouble).contiguous();
    // How many each rank has; and whether one has been told to end.
    std::vector<double> said(gang.size() + 1);
    said[gang.rank()] = static_cast<double>(doubles_S.numel());
    said.back() = stop.requested() ? 1 : 0;
    const std::vector<double> counts = gang.Sum(std::move(said));
    if (counts.back() > 0) return absl::CancelledError("stopped on request");
    for (int rank = 0; rank < gang.size(); ++rank) {
      const auto count = static_cast<size_t>(counts[rank]);
      if (rank == gang.rank()) {
        all.insert(all.end(), doubles_S.const_data_ptr<double>(), doubles_S.const_data_ptr<double>() + count);
      } else {
        all.resize(all.size() + count);
      }
    }
  }
  std::vector<float> logprobs;
  for (size_t begin = 0; begin < all.size(); begin += kGatheredAtOnce) {
    const auto end = all.begin() + static_cast<ptrdiff_t>(std::min(begin + kGatheredAtOnce, all.size()));
    for (const double value : gang.Sum({all.begin() + static_cast<ptrdiff_t>(begin), end})) {
      logprobs.push_back(static_cast<float>(value));
    }
  }
  return logprobs;
}

absl::Status Store(ObjectStore& store, const TrainJob& job, const std::string& digest,
                   const ReferenceLogprobs& values) {
  const auto publication = Publication::Begin(store, ReferenceDirectory(job.job_id, job.epoch), job.job_id, job.epoch);
  if (!publication.ok()) return publication.status();
  const auto bytes = [](const std::vector<float>& vector) {
    return std::string_view(reinterpret_cast<const char*>(vector.data()), vector.size() * sizeof(float));
  };
  std::vector<SafetensorsEntry> entries = {{kTraining, "F32", {std::ssize(values.training)}},
                                           {kValidation, "F32", {std::ssize(values.validation)}}};
  std::string file = BuildSafetensorsHeader(entries, {{kDigest, digest}});
  file.append(bytes(values.training)).append(bytes(values.validation));
  if (const absl::Status written = (*publication)->Write(kFile, file); !written.ok()) return written;
  return (*publication)->Commit();
}

absl::StatusOr<ReferenceLogprobs> Read(const ObjectStore& store, const std::string& directory,
                                       const std::string& digest) {
  const auto manifest = ReadManifest(store, directory);
  if (!manifest.ok()) return manifest.status();
  if (const absl::Status whole = VerifyFiles(store, directory, *manifest); !whole.ok()) return whole;
  const auto file = SafetensorsFile::Open(store, absl::StrCat(directory, "/", kFile));
  if (!file.ok()) return file.status();
  const SafetensorsHeader& header = (*file)->header();
  const auto stored = header.metadata.find(kDigest);
  if (stored == header.metadata.end() || stored->second != digest) {
    return absl::DataLossError("it belongs to another model or other data");
  }
  ReferenceLogprobs values;
  for (const SafetensorsEntry& entry : header.entries) {
    const auto tensor = (*file)->Tensor(entry);
    if (!tensor.ok()) return tensor.status();
    const float* const begin = tensor->const_data_ptr<float>();
    (entry.name == kTraining ? values.training : values.validation).assign(begin, begin + tensor->numel());
  }
  return values;
}

// The newest that is whole and belongs here; empty values when there is none.
absl::StatusOr<std::optional<ReferenceLogprobs>> Find(const ObjectStore& store, const TrainJob& job,
                                                      const std::string& digest, TrainObserver& observer) {
  const auto epochs = ListCommittedReferences(store, job.job_id);
  if (!epochs.ok()) return epochs.status();
  for (const int32_t epoch : *epochs) {
    const std::string directory = ReferenceDirectory(job.job_id, epoch);
    auto values = Read(store, directory, digest);
    if (values.ok()) return *std::move(values);
    if (!absl::IsDataLoss(values.status())) return values.status();
    observer.OnLog(LogSeverity::kWarning,
                   absl::StrCat("the reference's log-probabilities in ", store.UriOf(directory),
                                " can't be used, and are computed again: ", values.status().message()));
  }
  return std::nullopt;
}

}  // namespace

bool NeedsReferencePass(const TrainJob& job) {
  if (!job.preference || !NeedsReference(job.preference->loss)) return false;
  return !job.lora || !job.lora->adapter.empty() || !job.lora->modules_to_save.empty();
}

absl::StatusOr<bool> LoadReference(const ObjectStore& store, const TrainJob& job, TrainingData& data,
                                   ProcessGroup* ranks, TrainObserver& observer) {
  auto found = Find(store, job, DigestOf(job, data), observer);
  if (const absl::Status all = Agree(found.status(), ranks); !all.ok()) return all;
  if (!found->has_value()) return false;  // for no rank: all look at the same store, long after it was written
  if (const absl::Status set = data.SetReference(**std::move(found)); !set.ok()) return set;
  return true;
}

absl::Status TakeReferencePass(ObjectStore& store, const TrainJob& job, const Gang& gang, TrainableModel& model,
                               TrainingData& data, const StopSignal& stop, TrainObserver& observer) {
  const SampleSet& samples = data.batches().samples();
  const int64_t capacity = job.training.micro_batch_tokens;
  const auto rows = RowsInOrder(samples, capacity);
  observer.OnLog(LogSeverity::kInfo,
                 absl::StrCat("reference: one pass of the model over ", Counted(samples.size(), "pair"),
                              ", before the "
                              "first step"));
  ReferenceLogprobs values;
  auto training =
      Logprobs(gang, model, rows.size(), [&](size_t row) { return PackRow(samples, rows[row], capacity); }, stop);
  if (!training.ok()) return training.status();
  values.training = *std::move(training);
  if (data.validation()) {
    const std::vector<MicroBatch>& held_out = data.validation()->rows;
    auto validation =
        Logprobs(gang, model, held_out.size(), [&](size_t row) -> const MicroBatch& { return held_out[row]; }, stop);
    if (!validation.ok()) return validation.status();
    values.validation = *std::move(validation);
  }
  const absl::Status stored = gang.rank() == 0 ? Store(store, job, DigestOf(job, data), values) : absl::OkStatus();
  if (absl::Status all = Agree(stored, gang.group()); !all.ok()) return all;
  return data.SetReference(std::move(values));
}

}  // namespace temper

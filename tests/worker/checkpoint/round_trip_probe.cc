// SPDX-License-Identifier: Apache-2.0
// round_trip_probe SOURCE DESTINATION MAX_SHARD_SIZE [fp32|bf16 [FROZEN…]]: loads a model and exports it again without
// training, through everything that a job's export goes through. FROZEN are patterns of names that would not be
// trained. Prints the proof as JSON, with the most memory that it ever had (peak_bytes); an error goes to stderr with
// status 1.

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "common/failure.h"
#include "common/storage/publication.h"
#include "tests/peak_memory.h"
#include "worker/checkpoint/export_proof.h"
#include "worker/checkpoint/hf_export.h"
#include "worker/checkpoint/native_model.h"

namespace temper {
namespace {

absl::Status RoundTrip(const std::string& from, const std::filesystem::path& to, int64_t max_shard_size,
                       const TransformerOptions& options) {
  absl::StatusOr<NativeRepository> native = OpenNativeRepository(from);
  if (!native.ok()) return native.status();
  absl::StatusOr<std::unique_ptr<Transformer>> model = LoadTransformer(*native, options);
  if (!model.ok()) return model.status();
  absl::StatusOr<std::unique_ptr<ObjectStore>> store = ObjectStore::Open(to.parent_path().string());
  if (!store.ok()) return store.status();
  absl::StatusOr<std::unique_ptr<Publication>> publication =
      Publication::Begin(**store, to.filename().string(), "round-trip", 1);
  if (!publication.ok()) return publication.status();
  const std::vector<WeightView>& weights = (*model)->views();
  absl::Status status = ExportModel(*native->repository, *native->family, native->config, weights,
                                    {.max_shard_size = max_shard_size}, **publication);
  if (!status.ok()) return status;
  absl::StatusOr<ExportProof> proof =
      ProveExport(**store, to.filename().string(), *native->repository, *native->family, native->config, weights);
  if (!proof.ok()) return proof.status();
  nlohmann::ordered_json found = proof->ToJson();
  found["peak_bytes"] = MemoryStatus("VmHWM:");
  std::cout << found.dump() << std::endl;
  status = (*publication)->Write(kVerificationName, proof->ToJson().dump(2) + "\n");
  return status.ok() ? (*publication)->Commit() : status;
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: round_trip_probe SOURCE DESTINATION MAX_SHARD_SIZE [fp32|bf16 [FROZEN…]]\n";
    return 2;
  }
  const bool bf16 = argc > 4 && std::string(argv[4]) == "bf16";
  temper::TransformerOptions options{.dtype = bf16 ? at::kBFloat16 : at::kFloat};
  for (int i = 5; i < argc; ++i) options.freeze.emplace_back(argv[i]);
  const absl::Status status = temper::RoundTrip(argv[1], argv[2], std::atoll(argv[3]), options);
  if (status.ok()) return 0;
  std::cerr << absl::StatusCodeToString(status.code()) << " " << temper::FailureCauseName(temper::CauseOf(status))
            << " " << status.message() << "\n";
  return 1;
}

// SPDX-License-Identifier: Apache-2.0
// round_trip_probe SOURCE DESTINATION MAX_SHARD_SIZE [fp32|bf16 [FROZEN…]] [--world N] [--nudge]: loads a model and
// exports it again without training, through everything that a job's export goes through. FROZEN are patterns of names
// that would not be trained. Prints the proof as JSON, with the most memory that rank 0 ever had (peak_bytes); an error
// goes to stderr with status 1.
//
// --world: N ranks of this host, each a process with a shard of the model. --nudge: every weight that would be trained
// is changed a little, to something that bf16 does not hold.
//
// round_trip_probe serve: takes such commands from stdin (tests/command_server.h).

#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/failure.h"
#include "tests/command_server.h"
#include "tests/parity/probe_gang.h"
#include "tests/peak_memory.h"
#include "worker/checkpoint/export_proof.h"
#include "worker/checkpoint/hf_export.h"
#include "worker/checkpoint/joint_publication.h"
#include "worker/checkpoint/native_model.h"
#include "worker/parallel/agree.h"

namespace temper {
namespace {

struct Arguments {
  std::string source, destination;
  int64_t max_shard_size = 0;
  std::string precision = "fp32";
  std::vector<std::string> frozen;
  int world = 1;
  bool nudge = false;
};

absl::Status RoundTrip(const Arguments& arguments, ProcessGroup* ranks) {
  const TransformerOptions options = {.dtype = arguments.precision == "bf16" ? at::kBFloat16 : at::kFloat,
                                      .freeze = arguments.frozen};
  absl::StatusOr<NativeRepository> native = OpenNativeRepository(arguments.source);
  if (!native.ok()) return native.status();
  const absl::StatusOr<LoadedModel> loaded = LoadModel(*native, options, ranks);
  if (!loaded.ok()) return loaded.status();
  if (arguments.nudge) NudgeWeights(loaded->shards ? loaded->shards->parameters() : loaded->model->parameters());
  const std::filesystem::path destination = arguments.destination;
  const std::string name = destination.filename().string();
  absl::StatusOr<std::unique_ptr<ObjectStore>> store = ObjectStore::Open(destination.parent_path().string());
  if (!store.ok()) return store.status();
  const auto publication = BeginTogether(**store, name, "round-trip", 1, ranks);
  if (!publication.ok()) return publication.status();
  const std::vector<WeightView>& weights = loaded->model->views();
  absl::Status status = ExportModel(*native->repository, *native->family, native->config, weights,
                                    {.max_shard_size = arguments.max_shard_size, .ranks = ranks}, **publication);
  if (!status.ok()) return status;
  absl::StatusOr<ExportProof> proof =
      ProveExport(**store, name, *native->repository, *native->family, native->config, weights, ranks);
  if (!proof.ok()) return proof.status();
  if (ranks == nullptr || ranks->rank() == 0) {
    nlohmann::ordered_json found = proof->ToJson();
    found["peak_bytes"] = MemoryStatus("VmHWM:");
    std::cout << found.dump() << std::endl;
    status = (*publication)->Write(kVerificationName, proof->ToJson().dump(2) + "\n");
  }
  status = Agree(status, ranks);
  return status.ok() ? CommitTogether(**publication, ranks) : status;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Loads a model and exports it again.");
  app.add_option("source", arguments.source)->required();
  app.add_option("destination", arguments.destination)->required();
  app.add_option("max_shard_size", arguments.max_shard_size)->required();
  app.add_option("precision", arguments.precision);
  app.add_option("frozen", arguments.frozen);
  app.add_option("--world", arguments.world);
  app.add_flag("--nudge", arguments.nudge);
  CLI11_PARSE(app, argc, argv);
  const ProbeRank rank = StartRanks(arguments.world);
  std::unique_ptr<ProcessGroup> group;
  if (arguments.world > 1) group = *ProcessGroup::Connect(rank.rendezvous);
  const absl::Status status = RoundTrip(arguments, group.get());
  if (!status.ok() && rank.rendezvous.rank == 0) {
    std::cerr << absl::StatusCodeToString(status.code()) << " " << FailureCauseName(CauseOf(status)) << " "
              << status.message() << "\n";
  }
  return rank.WaitForOthers() == 0 && status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "serve") return temper::ServeCommands(argv[0], temper::Main);
  return temper::Main(argc, argv);
}

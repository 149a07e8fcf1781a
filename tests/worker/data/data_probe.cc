// SPDX-License-Identifier: Apache-2.0
// Turns samples, one a line on stdin, into tokens and loss masks, one {"ids": […], "scored": […]} or {"error": "…"} a
// line on stdout. Lets test_chat_examples.py compare with transformers.
//
//   data_probe MODEL_DIR default|assistant|completion|all|last_turn
//
// Or reads all records of a data file, and says {"records": N, "error": "…", "peak_bytes": B}. Lets test_data_memory.py
// see how much memory that takes.
//
//   data_probe records FILE

#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "common/storage/object_store.h"
#include "worker/data/record_stream.h"
#include "worker/data/sample.h"
#include "worker/data/sample_builder.h"
#include "worker/text/template_files.h"

namespace temper {
namespace {

const std::map<std::string, TrainOn> kTrainOn = {{"default", TrainOn::kDefault},
                                                 {"assistant", TrainOn::kAssistant},
                                                 {"completion", TrainOn::kCompletion},
                                                 {"all", TrainOn::kAll},
                                                 {"last_turn", TrainOn::kLastTurn}};

// The largest resident set that this process has had.
int64_t PeakBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return 1024 * std::stoll(line.substr(6));
  }
  return 0;
}

absl::Status ReadAll(const char* file, int64_t& records) {
  absl::StatusOr<RecordStream> stream = RecordStream::Open({{.uri = file}}, {});
  if (!stream.ok()) return stream.status();
  while (true) {
    const absl::StatusOr<std::optional<SourceRecord>> record = stream->Next();
    if (!record.ok()) return record.status();
    if (!record->has_value()) return absl::OkStatus();
    ++records;
  }
}

void CountRecords(const char* file) {
  int64_t records = 0;
  const absl::Status status = ReadAll(file, records);
  std::cout << nlohmann::json{
      {"records", records}, {"error", std::string(status.message())}, {"peak_bytes", PeakBytes()}};
}

absl::Status Run(const char* directory, TrainOn train_on) {
  absl::StatusOr<std::unique_ptr<ObjectStore>> model = ObjectStore::Open(directory);
  if (!model.ok()) return model.status();
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Open(**model);
  if (!tokenizer.ok()) return tokenizer.status();
  const absl::StatusOr<ChatTemplate> chat_template = ChatTemplate::Open(**model, /*now=*/0);
  const absl::StatusOr<nlohmann::ordered_json> special_tokens = ReadSpecialTokens(**model);
  if (!special_tokens.ok()) return special_tokens.status();
  const SampleBuilder builder(*tokenizer, chat_template, special_tokens->value("eos_token", ""), train_on);
  for (std::string line; std::getline(std::cin, line);) {
    absl::StatusOr<Sample> sample = ParseSample(line, {}, "stdin");
    absl::StatusOr<Example> example = sample.ok() ? builder.Build(*sample) : absl::StatusOr<Example>(sample.status());
    const nlohmann::json answer = example.ok() ? nlohmann::json{{"ids", example->ids}, {"scored", example->scored}}
                                               : nlohmann::json{{"error", std::string(example.status().message())}};
    std::cout << answer.dump() << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "records") {
    temper::CountRecords(argv[2]);
    return 0;
  }
  if (argc != 3 || !temper::kTrainOn.contains(argv[2])) {
    std::cerr << "usage: data_probe MODEL_DIR TRAIN_ON, or data_probe records FILE\n";
    return 2;
  }
  const absl::Status status = temper::Run(argv[1], temper::kTrainOn.at(argv[2]));
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

// SPDX-License-Identifier: Apache-2.0
// `data_bench MODEL_DIR DATA THREADS`: reads, renders, tokenises and packs all of DATA once, as a job would, and prints
// the rate. tests/bench/data_rate.py writes data for it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "common/storage/object_store.h"
#include "worker/data/batch_stream.h"
#include "worker/data/sample_builder.h"
#include "worker/text/template_files.h"
#include "worker/train/stopwatch.h"

namespace temper {
namespace {

absl::Status Run(const std::string& model_uri, const std::string& data, int threads) {
  const auto model = ObjectStore::Open(model_uri);
  if (!model.ok()) return model.status();
  const auto tokenizer = Tokenizer::Open(**model);
  if (!tokenizer.ok()) return tokenizer.status();
  const auto chat_template = ChatTemplate::Open(**model, /*now=*/0);
  const auto special_tokens = ReadSpecialTokens(**model);
  if (!special_tokens.ok()) return special_tokens.status();
  const SampleBuilder builder(*tokenizer, chat_template, special_tokens->value("eos_token", ""), TrainOn::kDefault);

  BatchOptions options;
  options.samples.sources = {{.uri = data}};
  options.samples.max_tokens = 1024;
  options.micro_batch_tokens = 2048;
  options.tokens_per_step = 2048;
  options.epochs = 1;
  options.threads = threads;
  Stopwatch watch;
  const auto stream = BatchStream::Open(options, builder);
  if (!stream.ok()) return stream.status();
  int64_t tokens = 0, rows = 0;
  while (true) {
    const auto step = (*stream)->NextStep();
    if (!step.ok()) return step.status();
    if (step->empty()) break;
    for (const MicroBatch& row : *step) tokens += static_cast<int64_t>(row.tokens_T.size());
    rows += static_cast<int64_t>(step->size());
  }
  const double seconds = watch.Lap();
  const auto rate = static_cast<double>(tokens) / seconds;
  std::printf("%lld tokens in %lld rows of 2048 in %.2f s with %d threads: %.0f tokens/s, %.0f a thread\n",
              static_cast<long long>(tokens), static_cast<long long>(rows), seconds, threads, rate, rate / threads);
  return absl::OkStatus();
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: data_bench MODEL_DIR DATA THREADS\n");
    return 2;
  }
  const absl::Status status = temper::Run(argv[1], argv[2], std::atoi(argv[3]));
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

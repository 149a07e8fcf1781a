// SPDX-License-Identifier: Apache-2.0
// What a snapshot holds is tested with the checkpoints that are written from it.
#include "worker/checkpoint/train_snapshot.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "worker/model/transformer.h"

namespace temper {
namespace {

double Seconds(const std::function<void()>& function) {
  const auto begin = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Training stands still meanwhile. A machine that is busy slows both down, at times only one: the fastest of several
// rounds count. tests/bench/snapshot_bench.cc measures it on a real model.
TEST(TrainSnapshot, State_IsCopiedAboutAsFastAsMemcpyDoes) {
  ModelConfig config;
  config.hidden_size = 256;
  config.num_layers = 4;
  config.vocab_size = 40'000;
  config.attention = {.num_heads = 4, .num_kv_heads = 4, .head_dim = 64, .scale = 1};
  config.feed_forward.intermediate_size = 1024;
  const Transformer model(config, {});
  std::vector<Moments> moments;
  std::vector<at::Tensor> state;
  for (Parameter* parameter : model.parameters()) {
    parameter->weight.detach().fill_(1);
    moments.push_back({parameter, at::ones(parameter->weight.sizes()), at::ones(parameter->weight.sizes())});
    for (const at::Tensor& tensor : {parameter->weight, moments.back().first, moments.back().second}) {
      state.push_back(tensor);
    }
  }
  const auto copy = [&] {
    std::vector<std::unique_ptr<char[]>> fresh;
    for (const at::Tensor& tensor : state) {
      fresh.emplace_back(new char[tensor.nbytes()]);
      std::memcpy(fresh.back().get(), tensor.const_data_ptr(), tensor.nbytes());
    }
  };
  int64_t bytes = 0;
  const auto take = [&] { bytes = TakeSnapshot(model, moments, {}).bytes; };
  double memcpy_seconds = std::numeric_limits<double>::max(), snapshot_seconds = memcpy_seconds;
  for (int round = 0; round < 20; ++round) {
    memcpy_seconds = std::min(memcpy_seconds, Seconds(copy));
    snapshot_seconds = std::min(snapshot_seconds, Seconds(take));
    if (round >= 4 && snapshot_seconds <= 1.5 * memcpy_seconds) break;
  }
  EXPECT_GT(bytes, 100'000'000);
  EXPECT_LE(snapshot_seconds, 1.5 * memcpy_seconds);
}

}  // namespace
}  // namespace temper

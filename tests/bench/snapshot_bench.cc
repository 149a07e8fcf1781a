// SPDX-License-Identifier: Apache-2.0
// How long training stands still for a checkpoint's snapshot, against a plain memcpy of the same bytes into fresh
// memory:
//   build/release/tests/snapshot_bench MODEL_DIRECTORY
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <vector>

#include "worker/checkpoint/native_model.h"
#include "worker/checkpoint/train_snapshot.h"

namespace temper {
namespace {

template <typename Function>
double Seconds(const Function& function) {
  const auto begin = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Run(const char* directory) {
  const auto source = OpenNativeRepository(directory);
  if (!source.ok()) return std::cerr << source.status() << "\n", 1;
  const auto model = LoadTransformer(*source, {});
  if (!model.ok()) return std::cerr << model.status() << "\n", 1;
  std::vector<Moments> moments;
  std::vector<at::Tensor> state;
  for (Parameter* parameter : (*model)->parameters()) {
    moments.push_back({parameter, at::ones(parameter->weight.sizes()), at::ones(parameter->weight.sizes())});
    for (const at::Tensor& tensor : {parameter->weight, moments.back().first, moments.back().second}) {
      state.push_back(tensor);
    }
  }
  int64_t bytes = 0;
  std::vector<double> copies, snapshots;
  for (int round = 0; round < 7; ++round) {
    copies.push_back(Seconds([&] {
      std::vector<std::unique_ptr<char[]>> fresh;
      for (const at::Tensor& tensor : state) {
        fresh.emplace_back(new char[tensor.nbytes()]);
        std::memcpy(fresh.back().get(), tensor.const_data_ptr(), tensor.nbytes());
      }
    }));
    snapshots.push_back(Seconds([&] { bytes = TakeSnapshot(**model, moments, {}).bytes; }));
  }
  std::printf(
      "{\"bytes\": %ld, \"threads\": %d, \"memcpy_seconds\": %.3f, \"snapshot_seconds\": %.3f, \"ratio\": %.2f}\n",
      bytes, at::get_num_threads(), Median(copies), Median(snapshots), Median(snapshots) / Median(copies));
  return 0;
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: snapshot_bench MODEL_DIRECTORY\n"), 2;
  return temper::Run(argv[1]);
}

// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/split_masters.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "worker/ops/master_split.h"

namespace temper::ops {
namespace {

// Elements that are worth a thread of their own.
constexpr int64_t kGrain = 1 << 15;

}  // namespace

at::Tensor JoinMasters(const at::Tensor& high, const at::Tensor& low) {
  if (!high.is_cpu()) return JoinMasters(high.cpu(), low.cpu()).to(high.device());
  at::Tensor master = at::empty(high.sizes(), high.options().dtype(at::kFloat));
  const auto* high_from = reinterpret_cast<const uint16_t*>(high.const_data_ptr<at::BFloat16>());
  const int16_t* low_from = low.const_data_ptr<int16_t>();
  float* to = master.mutable_data_ptr<float>();
  at::parallel_for(0, master.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = JoinMaster({high_from[i], low_from[i]});
  });
  return master;
}

void SplitMasters(const at::Tensor& master, at::Tensor high, at::Tensor low) {
  if (!high.is_cpu()) {
    const at::Tensor high_cpu = at::empty(high.sizes(), at::kBFloat16), low_cpu = at::empty(low.sizes(), at::kShort);
    SplitMasters(master.cpu(), high_cpu, low_cpu);
    high.copy_(high_cpu);
    low.copy_(low_cpu);
    return;
  }
  const float* from = master.const_data_ptr<float>();
  auto* high_to = reinterpret_cast<uint16_t*>(high.mutable_data_ptr<at::BFloat16>());
  int16_t* low_to = low.mutable_data_ptr<int16_t>();
  at::parallel_for(0, master.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const MasterSplit split = SplitMaster(from[i]);
      high_to[i] = split.high;
      low_to[i] = split.low;
    }
  });
}

}  // namespace temper::ops

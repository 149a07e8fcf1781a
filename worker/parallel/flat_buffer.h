// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include <cstdint>

#include "worker/parallel/buffer_pool.h"

namespace temper {

// A vector whose memory comes and goes while tensors on it stay: they see what is in it whenever it is open, and must
// not be looked at while it is closed. Closed at first.
class FlatBuffer {
 public:
  // `pool` outlives it. Null: memory comes from the system and goes back to it.
  FlatBuffer(int64_t size, const at::TensorOptions& options, BufferPool* pool);
  ~FlatBuffer() { Close(); }
  FlatBuffer(const FlatBuffer&) = delete;
  FlatBuffer& operator=(const FlatBuffer&) = delete;

  // The content is anything.
  void Open();
  void Close();
  bool is_open() const { return open_; }

  // All of it, as a vector.
  const at::Tensor& flat() const { return flat_; }
  // The elements from `offset` on. To autograd no view of anything: what is written through another tensor is no change
  // of this one, so a graph that has it may wait while the buffer is closed and filled again.
  at::Tensor TensorAt(int64_t offset, at::IntArrayRef sizes) const;

 private:
  at::TensorOptions options_;
  size_t bytes_;
  BufferPool* pool_;
  c10::Storage storage_;
  at::Tensor flat_;
  bool open_ = false;
};

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#include "worker/parallel/flat_buffer.h"

#include <ATen/ATen.h>

#include <utility>

namespace temper {

FlatBuffer::FlatBuffer(int64_t size, const at::TensorOptions& options, BufferPool* pool)
    : options_(options),
      bytes_(static_cast<size_t>(size) * options.dtype().itemsize()),
      pool_(pool),
      storage_(c10::Storage::use_byte_size_t(), bytes_, at::DataPtr(nullptr, options.device())),
      flat_(TensorAt(0, {size})) {}

void FlatBuffer::Open() {
  if (std::exchange(open_, true)) return;
  storage_.set_data_ptr_noswap(pool_ != nullptr ? pool_->Take(bytes_)
                                                : c10::GetAllocator(options_.device().type())->allocate(bytes_));
}

void FlatBuffer::Close() {
  if (!std::exchange(open_, false)) return;
  at::DataPtr memory = storage_.set_data_ptr(at::DataPtr(nullptr, options_.device()));
  if (pool_ != nullptr) pool_->Give(bytes_, std::move(memory));
}

at::Tensor FlatBuffer::TensorAt(int64_t offset, at::IntArrayRef sizes) const {
  at::Tensor tensor = at::empty({0}, options_);
  at::TensorImpl* const impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(storage_);
  impl->set_storage_offset(offset);
  impl->set_sizes_contiguous(sizes);
  return tensor;
}

}  // namespace temper

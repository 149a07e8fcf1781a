// SPDX-License-Identifier: Apache-2.0
// HfReference over worker/python/hf_reference.py. Tensors cross as they are: both sides see one storage.
#include "worker/python/embedded_call.h"
//
#include <pybind11/stl.h>

#include <utility>

#include "hf_reference_source.h"
#include "python_interface.h"
#include "worker/python/hf_reference.h"

namespace temper {
namespace {

class EmbeddedHfReference : public HfReference {
 public:
  explicit EmbeddedHfReference(py::object reference) : reference_(std::move(reference)) {}
  ~EmbeddedHfReference() override {
    const py::gil_scoped_acquire lock;
    reference_ = py::object();
  }

  absl::StatusOr<at::Tensor> Logits(const at::Tensor& ids_T) override {
    return WithPython<at::Tensor>([&] { return reference_.attr("logits")(ids_T).cast<at::Tensor>(); });
  }

  absl::StatusOr<std::vector<at::Tensor>> PaddedLogits(const std::vector<at::Tensor>& documents) override {
    using Result = std::vector<at::Tensor>;
    return WithPython<Result>([&] { return reference_.attr("padded_logits")(documents).cast<Result>(); });
  }

  absl::StatusOr<HfTrace> Trace(const at::Tensor& ids_T, const std::vector<std::string>& modules) override {
    using Result = std::pair<std::map<std::string, std::pair<at::Tensor, at::Tensor>>, at::Tensor>;
    return WithPython<HfTrace>([&] {
      auto [tensors, logits_TV] = reference_.attr("trace")(ids_T, modules).cast<Result>();
      HfTrace trace{.logits_TV = std::move(logits_TV)};
      for (auto& [name, both] : tensors) trace.modules[name] = {both.first, both.second};
      return trace;
    });
  }

  absl::StatusOr<std::map<std::string, at::Tensor>> Gradients(const std::vector<at::Tensor>& documents) override {
    using Result = std::map<std::string, at::Tensor>;
    return WithPython<Result>([&] { return reference_.attr("gradients")(documents).cast<Result>(); });
  }

  absl::StatusOr<std::optional<std::vector<at::Tensor>>> Encode(const std::vector<std::string>& texts) override {
    using Result = std::optional<std::vector<at::Tensor>>;
    return WithPython<Result>([&] { return reference_.attr("encode")(texts).cast<Result>(); });
  }

 private:
  py::object reference_;
};

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* temper_python_interface() { return kPythonInterface; }

extern "C" __attribute__((visibility("default"))) void temper_open_hf_reference(
    const HfSource& source, at::ScalarType dtype, absl::StatusOr<std::unique_ptr<HfReference>>& result) {
  if (absl::Status status = StartInterpreter(); !status.ok()) {
    result = status;
    return;
  }
  result = WithPython<std::unique_ptr<HfReference>>([&]() -> std::unique_ptr<HfReference> {
    const char* name = dtype == at::kBFloat16 ? "bfloat16" : "float32";
    const HfLayers& layers = source.layers;
    const py::object part =
        layers.count > 0 ? py::object(py::make_tuple(layers.config, layers.begin, layers.count)) : py::none();
    return std::make_unique<EmbeddedHfReference>(RunSource(kHfReferenceSource, "temper_hf_reference")["Reference"](
        source.directory, source.adapter, name, part));
  });
}

}  // namespace temper

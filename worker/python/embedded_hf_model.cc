// SPDX-License-Identifier: Apache-2.0
// HfModel over worker/python/hf_model.py. Tensors cross as they are: both sides see one storage.
#include "worker/python/embedded_call.h"
//
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <optional>
#include <tuple>
#include <utility>

#include "hf_model_source.h"
#include "worker/python/hf_model.h"

namespace temper {
namespace {

HfWeight::Kind KindOf(const std::string& name) {
  if (name == "linear") return HfWeight::Kind::kLinear;
  if (name == "conv1d") return HfWeight::Kind::kConv1d;
  if (name == "embedding") return HfWeight::Kind::kEmbedding;
  return name == "head" ? HfWeight::Kind::kHead : HfWeight::Kind::kOther;
}

HfDescription ToDescription(const py::dict& from) {
  const auto number = [&](const char* key) { return from[key].cast<int64_t>(); };
  HfDescription description = {.architecture = from["architecture"].cast<std::string>(),
                               .vocab_size = number("vocab_size"),
                               .hidden_size = number("hidden_size"),
                               .layers = number("layers"),
                               .heads = number("heads"),
                               .positions = number("positions"),
                               .tied_head = from["tied"].cast<bool>(),
                               .plain_head = from["plain_head"].cast<bool>(),
                               .packs = from["packs"].cast<bool>()};
  using Pieces = std::vector<std::tuple<std::string, int64_t, int64_t>>;
  using Weight = std::tuple<std::string, std::vector<int64_t>, std::string, bool, Pieces>;
  for (auto& [name, shape, kind, parameter, pieces] : from["weights"].cast<std::vector<Weight>>()) {
    HfWeight& weight = description.weights.emplace_back();
    weight = {std::move(name), std::move(shape), KindOf(kind), parameter, {}};
    for (auto& [stored, row, rows] : pieces) weight.pieces.push_back({std::move(stored), row, rows});
  }
  description.names = from["names"].cast<std::vector<std::pair<std::string, std::string>>>();
  description.ignored = from["ignored"].cast<std::vector<std::string>>();
  return description;
}

class EmbeddedHfModel : public HfModel {
 public:
  explicit EmbeddedHfModel(py::object model) : model_(std::move(model)) {}
  ~EmbeddedHfModel() override {
    const py::gil_scoped_acquire lock;
    model_ = py::object();
  }

  absl::StatusOr<HfDescription> Describe(const std::vector<std::string>& stored) override {
    return WithPython<HfDescription>([&] { return ToDescription(model_.attr("describe")(stored)); });
  }

  absl::StatusOr<std::map<std::string, at::Tensor>> Weights() override {
    using Result = std::map<std::string, at::Tensor>;
    return WithPython<Result>([&] { return model_.attr("weights").cast<Result>(); });
  }

  absl::Status ToBfloat16() override {
    return WithPython<bool>([&] {
             model_.attr("to_bfloat16")();
             return true;
           })
        .status();
  }

  absl::StatusOr<std::map<std::string, std::vector<at::Tensor>>> AddLora(const HfLora& lora) override {
    using Result = std::map<std::string, std::vector<at::Tensor>>;
    return WithPython<Result>([&] {
      return model_.attr("add_lora")(lora.modules, lora.rank, lora.alpha, lora.rslora, lora.dora, lora.dropout)
          .cast<Result>();
    });
  }

  absl::StatusOr<std::string> CheckPacking() override {
    return WithPython<std::string>([&] { return model_.attr("check_packing")().cast<std::string>(); });
  }

  absl::StatusOr<HfProducts> Products() override {
    return WithPython<HfProducts>([&] {
      using Attention = std::vector<std::tuple<int64_t, int64_t, int64_t>>;
      auto [known, rows, attention] =
          model_.attr("products")().cast<std::tuple<bool, std::map<std::string, double>, Attention>>();
      HfProducts products = {.known = known, .rows_per_token = std::move(rows), .attention = {}};
      for (const auto& [queries, values, window] : attention) {
        products.attention.push_back({.query_width = queries, .value_width = values, .window = window});
      }
      return products;
    });
  }

  absl::StatusOr<at::Tensor> Hidden(const at::Tensor& tokens_T, const at::Tensor& positions_T,
                                    const std::vector<int64_t>& starts, bool train, bool adapters) override {
    return WithPython<at::Tensor>(
        [&] { return model_.attr("hidden")(tokens_T, positions_T, starts, train, adapters).cast<at::Tensor>(); });
  }

  absl::StatusOr<at::Tensor> Logits(const at::Tensor& tokens_T) override {
    return WithPython<at::Tensor>([&] { return model_.attr("logits")(tokens_T).cast<at::Tensor>(); });
  }

  absl::StatusOr<at::Tensor> OwnLogits(const at::Tensor& hidden_SD) override {
    return WithPython<at::Tensor>([&] { return model_.attr("own_logits")(hidden_SD).cast<at::Tensor>(); });
  }

 private:
  py::object model_;
};

// The attention function as Python calls it, without the interpreter's lock in the computation.
py::object AttendFrom(HfAttention attention) {
  return py::cpp_function([attention = std::move(attention)](const at::Tensor& q, const at::Tensor& k,
                                                             const at::Tensor& v, const std::vector<int64_t>& starts,
                                                             double scale, double softcap, int64_t window,
                                                             const std::optional<at::Tensor>& sinks) {
    const py::gil_scoped_release unlock;
    return attention(q, k, v, starts, scale, softcap, window, sinks.value_or(at::Tensor()));
  });
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void temper_open_hf_model(
    const HfModelSource& source, bool meta, HfAttention attention, absl::StatusOr<std::unique_ptr<HfModel>>& result) {
  if (absl::Status status = StartInterpreter(); !status.ok()) {
    result = status;
    return;
  }
  result = WithPython<std::unique_ptr<HfModel>>([&]() -> std::unique_ptr<HfModel> {
    // One namespace for all models: it registers the attention function, under one name.
    static PyObject* const names = RunSource(kHfModelSource, "temper_hf_model").release().ptr();
    const auto module = py::reinterpret_borrow<py::dict>(names);
    module["ATTENTION"].attr("attend") = AttendFrom(std::move(attention));
    return std::make_unique<EmbeddedHfModel>(
        module["Model"](source.config, source.directory, source.remote_code, meta));
  });
}

}  // namespace temper

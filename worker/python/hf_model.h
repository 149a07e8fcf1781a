// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

// Legend: T tokens of documents one after another, S some of them; H heads of queries, K of keys; d their width; D
// hidden, V vocabulary.

namespace temper {

// Causal attention within documents, as ops::PackedAttention. q [T, H, d], k and v [T, K, d] → [T, H, d]; `starts` are
// those of the documents, and T. Soft cap and window are 0 without; sinks undefined.
using HfAttention = std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             const std::vector<int64_t>& starts, double scale, double softcap,
                                             int64_t window, const at::Tensor& sinks)>;

struct HfModelSource {
  std::string config;        // config.json
  std::string directory;     // where the model's own code lies
  bool remote_code = false;  // which may be run
};

// A parameter of a transformers model, or a buffer that its checkpoints hold.
struct HfWeight {
  enum class Kind { kOther, kLinear, kConv1d, kEmbedding, kHead };
  std::string name;  // in memory
  std::vector<int64_t> shape;
  Kind kind = Kind::kOther;
  bool parameter = true;
  // Of a weight that is fused in memory: what it is in a checkpoint, as rows of it; its shape is then that of a matrix.
  // None: it is one tensor there.
  struct Piece {
    std::string stored;
    int64_t row = 0;
    int64_t rows = 0;
  };
  std::vector<Piece> pieces;
};

struct HfDescription {
  std::string architecture;
  int64_t vocab_size = 0;  // rows of the head
  int64_t hidden_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;      // 0: it has no such number
  int64_t positions = 0;  // 0: as many as one likes
  bool tied_head = false;
  bool plain_head = false;  // the head is a linear map without a bias
  bool packs = false;       // attention goes through transformers' interface
  std::vector<HfWeight> weights;
  // Names in a checkpoint → names in memory, but for pieces; and tensors of a checkpoint that transformers passes over.
  std::vector<std::pair<std::string, std::string>> names;
  std::vector<std::string> ignored;
};

// What the body of a model multiplies.
struct HfProducts {
  bool known = false;                            // it is all that there is
  std::map<std::string, double> rows_per_token;  // of linear weights, by their names
  struct Attention {
    int64_t query_width = 0;  // of all heads
    int64_t value_width = 0;
    int64_t window = 0;
  };
  std::vector<Attention> attention;  // of each layer
};

// As worker/model/lora.h has them.
struct HfLora {
  int64_t rank = 0;
  double alpha = 0;
  bool rslora = false;
  bool dora = false;
  double dropout = 0;
  std::vector<std::string> modules;  // whole names in memory
};

// A causal language model of transformers in this process's interpreter, to be trained from here. Tensors are the
// model's own: what is written into a weight is what it computes with, and what it returns is recorded by autograd
// where gradients are on.
//
// Any thread, one call at a time; the interpreter's lock is held during a call only, and must not be held by who runs
// the backward pass. When Python raises: INTERNAL, RESOURCE_EXHAUSTED (OUT_OF_MEMORY) when there was no memory,
// UNIMPLEMENTED for what this backend can't train; the message is the exception's, and PythonTraceback has the rest.
class HfModel {
 public:
  // On CPU, in fp32, its weights not set; or on the device meta. Documents are packed where attention goes through
  // transformers' interface. UNAVAILABLE as PythonSymbol, or when the environment has no transformers.
  static absl::StatusOr<std::unique_ptr<HfModel>> Open(const HfModelSource& source, bool meta, HfAttention attention);
  virtual ~HfModel() = default;

  // `stored`: names of the tensors in the checkpoint.
  virtual absl::StatusOr<HfDescription> Describe(const std::vector<std::string>& stored) = 0;
  // By the names that Describe has for them.
  virtual absl::StatusOr<std::map<std::string, at::Tensor>> Weights() = 0;
  // But for what transformers keeps in fp32.
  virtual absl::Status ToBfloat16() = 0;
  // Freezes the model and puts PEFT's adapters on it: A [rank, in], B [out, rank] and, with DoRA, magnitudes [out] of
  // each module.
  virtual absl::StatusOr<std::map<std::string, std::vector<at::Tensor>>> AddLora(const HfLora& lora) = 0;

  // With its weights set: whether documents can be packed; from then on they are not if they can't. Says why, or "".
  virtual absl::StatusOr<std::string> CheckPacking() = 0;
  // After that.
  virtual absl::StatusOr<HfProducts> Products() = 0;
  // [T, D], final norm included. `train`: with the dropout that config.json asks for. `adapters`: with AddLora's.
  virtual absl::StatusOr<at::Tensor> Hidden(const at::Tensor& tokens_T, const at::Tensor& positions_T,
                                            const std::vector<int64_t>& starts, bool train, bool adapters) = 0;
  // fp32 [T, V] of one document, by the model's own forward pass.
  virtual absl::StatusOr<at::Tensor> Logits(const at::Tensor& tokens_T) = 0;
  // [S, V] of hidden states, with whatever the model does to its logits.
  virtual absl::StatusOr<at::Tensor> OwnLogits(const at::Tensor& hidden_SD) = 0;
};

// Of a status that came from Python; "" of another one.
std::string PythonTraceback(const absl::Status& status);

// How the module makes one: the type of `temper_open_hf_model` in libtemper_python.so. This file is what a rank and a
// module of another build must have in common (CMakeLists.txt).
using OpenHfModelFunction = void(const HfModelSource& source, bool meta, HfAttention attention,
                                 absl::StatusOr<std::unique_ptr<HfModel>>& result);

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/verifier.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/checkpoint/native_model.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/python/hf_reference.h"
#include "worker/verify/native_side.h"
#include "worker/verify/probe_documents.h"

namespace temper {
namespace {

using Documents = std::vector<at::Tensor>;

constexpr int64_t kSeed = 20240611;

// Both models, and what was found so far.
class Verification {
 public:
  explicit Verification(const VerifyOptions& options) : options_(options) {}

  absl::Status Run() {
    if (absl::Status status = Open(); !status.ok()) return status;
    const int64_t vocab_size = native_.config.vocab_size;
    const std::vector<int64_t> lengths = bf16() ? std::vector<int64_t>(16, 256) : ProbeLengths(native_.config);
    const Documents random = RandomDocuments(vocab_size, lengths, kSeed);
    verdict_.not_exercised = NotExercised(native_.config, lengths.front());
    if (absl::Status status = ComparePacked("random", random); !status.ok()) return status;
    if (absl::Status status = CompareText(); !status.ok()) return status;
    if (!bf16()) {
      if (absl::Status status = ComparePadded(random); !status.ok()) return status;
    }
    if (options_.layers) {
      if (absl::Status status = CompareLayers(random.front()); !status.ok()) return status;
    }
    if (options_.gradients) {
      const Documents documents = RandomDocuments(vocab_size, {100, 1, 60, 128}, kSeed + 1);
      if (absl::Status status = CompareGradients(documents); !status.ok()) return status;
    }
    verdict_.reasons = Judge(verdict_);
    return absl::OkStatus();
  }

  Verdict& verdict() { return verdict_; }

 private:
  bool bf16() const { return options_.dtype == at::kBFloat16; }

  absl::Status Open() {
    const bool planted = !options_.native_model.empty();
    absl::StatusOr<NativeRepository> native = OpenNativeRepository(planted ? options_.native_model : options_.model);
    if (!native.ok()) return native.status();
    native_ = *std::move(native);
    reference_directory_ = planted ? options_.model : native_.repository->directory();
    absl::StatusOr<std::unique_ptr<Transformer>> transformer =
        LoadTransformer(native_, {.dtype = options_.dtype, .observer = options_.layers ? &trace_ : nullptr});
    if (!transformer.ok()) return transformer.status();
    transformer_ = *std::move(transformer);
    verdict_.model = options_.model;
    verdict_.architecture = native_.family->architecture;
    verdict_.dtype = bf16() ? "bf16" : "fp32";
    if (absl::Status status = OpenReference(at::kFloat, reference_); !status.ok()) return status;
    return bf16() ? OpenReference(at::kBFloat16, hf_bf16_) : absl::OkStatus();
  }

  absl::Status OpenReference(at::ScalarType dtype, std::unique_ptr<HfReference>& reference) {
    absl::StatusOr<std::unique_ptr<HfReference>> opened = HfReference::Open(reference_directory_, dtype);
    if (opened.ok()) reference = *std::move(opened);
    return opened.status();
  }

  // Ours all in one row, HF's each on its own.
  absl::Status ComparePacked(const std::string& ids, const Documents& documents) {
    LogitCheck check{.ids = ids, .layout = "packed"};
    if (bf16()) check.hf_bf16.emplace();
    const at::Tensor hidden_TD = PackedHidden(*transformer_, documents);
    int64_t row = 0;
    for (const at::Tensor& document : documents) {
      const absl::StatusOr<at::Tensor> expected = reference_->Logits(document);
      if (!expected.ok()) return expected.status();
      const at::Tensor actual = NativeLogits(hidden_TD.narrow(0, row, document.size(0)));
      check.native = Merged(check.native, CompareLogits(*expected, actual));
      row += document.size(0);
      if (!bf16()) continue;
      const absl::StatusOr<at::Tensor> theirs = hf_bf16_->Logits(document);
      if (!theirs.ok()) return theirs.status();
      check.hf_bf16 = Merged(*check.hf_bf16, CompareLogits(*expected, *theirs));
    }
    verdict_.logits.push_back(std::move(check));
    return absl::OkStatus();
  }

  // Nothing when the model has no tokenizer.
  absl::Status CompareText() {
    absl::StatusOr<std::optional<Documents>> texts = reference_->Encode(ProbeTexts());
    if (!texts.ok() || !texts->has_value()) return texts.status();
    Documents documents;
    for (const at::Tensor& ids : **texts) {
      if (ids.numel() == 0) continue;
      const int64_t largest = ids.max().item<int64_t>();
      if (largest >= native_.config.vocab_size) {
        return absl::InvalidArgumentError(absl::StrCat(options_.model, ": the tokenizer gives token ", largest,
                                                       ", but the embedding has ", native_.config.vocab_size, " rows"));
      }
      documents.push_back(ids);
    }
    return ComparePacked("text", documents);
  }

  // HF's all in one batch. It must be that the padding changes nothing.
  absl::Status ComparePadded(const Documents& documents) {
    const int64_t longest = LongestPadded(native_.config);
    Documents shortened;
    for (const at::Tensor& ids : documents) shortened.push_back(ids.slice(0, 0, std::min(ids.size(0), longest)));
    const absl::StatusOr<std::vector<at::Tensor>> expected = reference_->PaddedLogits(shortened);
    if (!expected.ok()) return expected.status();
    const at::Tensor hidden_TD = PackedHidden(*transformer_, shortened);
    LogitCheck check{.ids = "random", .layout = "padded"};
    check.native = CompareLogits(at::cat(*expected), NativeLogits(hidden_TD));
    verdict_.logits.push_back(std::move(check));
    return absl::OkStatus();
  }

  absl::Status CompareLayers(const at::Tensor& ids_T) {
    trace_.Start();
    const at::Tensor hidden_TD = PackedHidden(*transformer_, {ids_T});
    trace_.OnModule("lm_head", hidden_TD, NativeLogits(hidden_TD));
    const std::vector<TracedModule> traced = trace_.Take();
    const std::vector<HfModule> modules = FindHfModules(native_.family->rules, native_.config.num_layers, traced);
    const absl::StatusOr<HfTrace> expected = TraceReference(*reference_, ids_T, modules);
    if (!expected.ok()) return expected.status();

    LayerReport report{.modules = CompareModules(modules, traced, *expected)};
    for (ModuleError& error : report.modules) error.input_allowed = error.output_allowed = kMaxModuleError;
    if (bf16()) {
      const absl::StatusOr<HfTrace> theirs = TraceReference(*hf_bf16_, ids_T, modules);
      if (!theirs.ok()) return theirs.status();
      for (ModuleError& error : report.modules) {
        const HfModuleTensors& truth = expected->modules.at(error.module.name);
        const HfModuleTensors& own = theirs->modules.at(error.module.name);
        const auto allowed = [](double own_error) {
          return std::max(kLeastBf16ModuleError, kMaxModuleRatio * own_error);
        };
        error.input_allowed = allowed(RelativeError(truth.input, own.input));
        error.output_allowed = allowed(RelativeError(truth.output, own.output));
      }
    }
    report.departure = FirstDeparture(report.modules, HfEmbeddingName(native_.family->rules));
    verdict_.layers = std::move(report);
    return absl::OkStatus();
  }

  // The head's output are the logits as they leave the model: scaled and capped.
  static absl::StatusOr<HfTrace> TraceReference(HfReference& reference, const at::Tensor& ids_T,
                                                const std::vector<HfModule>& modules) {
    std::vector<std::string> names;
    for (const HfModule& module : modules) names.push_back(module.name);
    absl::StatusOr<HfTrace> trace = reference.Trace(ids_T, names);
    if (!trace.ok()) return trace;
    for (const HfModule& module : modules) {
      if (module.parts.front() == "lm_head") trace->modules.at(module.name).output = trace->logits_TV;
    }
    return trace;
  }

  absl::Status CompareGradients(const Documents& documents) {
    absl::StatusOr<std::map<std::string, at::Tensor>> expected = reference_->Gradients(documents);
    if (!expected.ok()) return expected.status();
    const absl::StatusOr<TensorMap> map = TensorMap::Build(*native_.family, native_.config, transformer_->views());
    if (!map.ok()) return map.status();
    verdict_.gradients = CompareGradientSets(*expected, PackedGradients(*transformer_, *map, documents));
    return absl::OkStatus();
  }

  at::Tensor NativeLogits(const at::Tensor& hidden_SD) {
    const at::NoGradGuard no_grad;
    return transformer_->head().Logits(hidden_SD);
  }

  const VerifyOptions& options_;
  ModuleTrace trace_;
  NativeRepository native_;
  std::string reference_directory_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<HfReference> reference_;  // in fp32
  std::unique_ptr<HfReference> hf_bf16_;    // with dtype bf16
  Verdict verdict_;
};

}  // namespace

absl::StatusOr<Verdict> Verify(const VerifyOptions& options) {
  if (options.gradients && options.dtype != at::kFloat) {
    return absl::InvalidArgumentError("gradients are compared in fp32 only");
  }
  try {
    Verification verification(options);
    if (absl::Status status = verification.Run(); !status.ok()) return status;
    return std::move(verification.verdict());
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("the models do not fit into this machine's memory");
  }
}

}  // namespace temper

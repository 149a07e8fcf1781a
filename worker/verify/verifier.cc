// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/verifier.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/storage/local_copy.h"
#include "worker/checkpoint/adapter_plan.h"
#include "worker/checkpoint/native_model.h"
#include "worker/checkpoint/tensor_map.h"
#include "worker/model/mechanisms.h"
#include "worker/python/hf_reference.h"
#include "worker/verify/layer_range.h"
#include "worker/verify/native_side.h"
#include "worker/verify/probe_documents.h"
#include "worker/verify/routing.h"

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
    const std::vector<int64_t> lengths =
        bf16() ? std::vector<int64_t>(Bf16Documents(), 256) : ProbeLengths(native_.config);
    const Documents random = RandomDocuments(vocab_size, lengths, kSeed);
    verdict_.not_exercised = NotExercised(native_.config, lengths.front());
    if (absl::Status status = ComparePacked("random", random); !status.ok()) return status;
    if (absl::Status status = CompareText(); !status.ok()) return status;
    if (!bf16()) {
      if (absl::Status status = ComparePadded(random); !status.ok()) return status;
    }
    if (options_.compare_layers) {
      if (absl::Status status = CompareLayers(random.front()); !status.ok()) return status;
    }
    if (options_.compare_gradients) {
      const Documents documents = WithoutPadding(RandomDocuments(vocab_size, {100, 1, 60, 128}, kSeed + 1));
      if (absl::Status status = CompareGradients(documents); !status.ok()) return status;
    }
    verdict_.reasons = Judge(verdict_);
    return absl::OkStatus();
  }

  Verdict& verdict() { return verdict_; }

 private:
  bool bf16() const { return options_.dtype == at::kBFloat16; }
  // Of 256 tokens: enough for kMinBf16Positions when one in three is left out for its routing.
  size_t Bf16Documents() const { return verdict_.experts ? 24 : 16; }
  bool watches_routing() const { return bf16() && verdict_.experts; }

  absl::Status Open() {
    if (absl::Status status = OpenNative(); !status.ok()) return status;
    verdict_.experts = std::any_of(native_.config.layers.begin(), native_.config.layers.end(),
                                   [](const LayerConfig& layer) { return layer.experts; });
    if (absl::Status status = LoadNative(); !status.ok()) return status;
    verdict_.model = options_.model;
    verdict_.family = native_.family->name;
    verdict_.architecture = native_.family->architecture;
    verdict_.mechanisms = Mechanisms(native_.config);
    verdict_.dtype = bf16() ? "bf16" : "fp32";
    if (absl::Status status = OpenReference(at::kFloat, reference_); !status.ok()) return status;
    return bf16() ? OpenReference(at::kBFloat16, hf_bf16_) : absl::OkStatus();
  }

  // Also finds out what the reference is to open.
  absl::Status OpenNative() {
    const bool planted = !options_.native_model.empty();
    absl::StatusOr<NativeRepository> native =
        OpenLayers(planted ? options_.native_model : options_.model, options_.layers);
    if (!native.ok()) return native.status();
    native_ = *std::move(native);
    // transformers reads files of this machine alone.
    absl::StatusOr<LocalCopy> files = LocalCopy::Of(options_.model);
    if (!files.ok()) return files.status();
    model_files_ = *std::move(files);
    source_.directory = model_files_.path();
    verdict_.layers_of = options_.layers;
    if (options_.layers.count == 0) return absl::OkStatus();
    const auto reference = HfRepository::Open(source_.directory);
    if (!reference.ok()) return reference.status();
    source_.layers = {ConfigOfLayers((*reference)->config(), options_.layers).dump(), options_.layers.begin,
                      options_.layers.count};
    return absl::OkStatus();
  }

  absl::Status LoadNative() {
    std::unique_ptr<AdapterPlan> plan;
    TransformerOptions options{.dtype = options_.dtype};
    if (!options_.adapter.empty()) {
      auto planned = PlanFromAdapter(options_.adapter, /*dropout=*/0, native_);
      if (!planned.ok()) return planned.status();
      plan = *std::move(planned);
      absl::StatusOr<LocalCopy> files = LocalCopy::Of(options_.adapter);
      if (!files.ok()) return files.status();
      adapter_files_ = *std::move(files);
      source_.adapter = adapter_files_.path();
      options = plan->ModelOptions(options_.dtype, /*seed=*/0);
    }
    if (options_.compare_layers || watches_routing()) options.observer = &trace_;
    absl::StatusOr<std::unique_ptr<Transformer>> transformer = LoadTransformer(native_, options);
    if (!transformer.ok()) return transformer.status();
    transformer_ = *std::move(transformer);
    return plan != nullptr ? LoadStart(*plan, native_, *transformer_) : absl::OkStatus();
  }

  absl::Status OpenReference(at::ScalarType dtype, std::unique_ptr<HfReference>& reference) {
    absl::StatusOr<std::unique_ptr<HfReference>> opened = HfReference::Open(source_, dtype);
    if (opened.ok()) reference = *std::move(opened);
    return opened.status();
  }

  // transformers lets the padding token's embedding learn nothing, also where the token stands in a text.
  Documents WithoutPadding(Documents documents) const {
    const auto padding = native_.repository->config().find("pad_token_id");
    if (padding == native_.repository->config().end() || !padding->is_number_integer()) return documents;
    const int64_t other = (padding->get<int64_t>() + 1) % native_.config.vocab_size;
    for (at::Tensor& ids_T : documents) ids_T.masked_fill_(ids_T.eq(padding->get<int64_t>()), other);
    return documents;
  }

  // Ours all in one row, HF's each on its own.
  absl::Status ComparePacked(const std::string& ids, const Documents& documents) {
    LogitCheck check{.ids = ids, .layout = "packed"};
    if (bf16()) check.hf_bf16.emplace();
    if (watches_routing()) trace_.Start();
    const at::Tensor hidden_TD = PackedHidden(*transformer_, documents);
    const at::Tensor choices_TC =
        watches_routing() ? NativeChoices(native_.config.moe.top_k, trace_.Take()) : hidden_TD;
    int64_t row = 0;
    for (const at::Tensor& document : documents) {
      const int64_t tokens = document.size(0);
      const absl::StatusOr<Answer> expected = Ask(*reference_, document);
      if (!expected.ok()) return expected.status();
      const Answer actual = {NativeLogits(hidden_TD.narrow(0, row, tokens)), choices_TC.narrow(0, row, tokens)};
      row += tokens;
      if (!bf16()) {
        check.native = Merged(check.native, CompareLogits(expected->logits_TV, actual.logits_TV));
        continue;
      }
      const absl::StatusOr<Answer> theirs = Ask(*hf_bf16_, document);
      if (!theirs.ok()) return theirs.status();
      CompareInBf16(*expected, actual, *theirs, check);
    }
    verdict_.logits.push_back(std::move(check));
    return absl::OkStatus();
  }

  // What a model says of a document. choices_TC: the experts that each token went to, when the routing is watched.
  struct Answer {
    at::Tensor logits_TV;
    at::Tensor choices_TC;
  };

  absl::StatusOr<Answer> Ask(HfReference& reference, const at::Tensor& ids_T) {
    if (!watches_routing()) {
      absl::StatusOr<at::Tensor> logits_TV = reference.Logits(ids_T);
      if (!logits_TV.ok()) return logits_TV.status();
      return Answer{*std::move(logits_TV), {}};
    }
    const std::vector<std::string> routers = HfRouterNames(native_.family->rules, native_.config);
    absl::StatusOr<HfTrace> trace = reference.Trace(ids_T, routers);
    if (!trace.ok()) return trace.status();
    std::vector<at::Tensor> scores;
    for (const std::string& router : routers) {
      const auto found = trace->modules.find(router);
      if (found == trace->modules.end()) return absl::InternalError(absl::StrCat("transformers has no ", router));
      scores.push_back(found->second.output);
    }
    return Answer{trace->logits_TV, Choices(native_.config.moe.top_k, scores)};
  }

  // Where rounding sends a token to other experts, bf16 computes something else and not the same less exactly: such
  // positions are counted, not compared.
  void CompareInBf16(const Answer& expected, const Answer& actual, const Answer& theirs, LogitCheck& check) const {
    at::Tensor kept_S = at::arange(expected.logits_TV.size(0), at::kLong);
    if (watches_routing()) {
      const at::Tensor same_T =
          actual.choices_TC.eq(expected.choices_TC).logical_and(theirs.choices_TC.eq(expected.choices_TC)).all(1);
      kept_S = same_T.nonzero().squeeze(1);
      check.routing_flips += same_T.size(0) - kept_S.size(0);
    }
    const auto kept = [&](const Answer& answer) { return answer.logits_TV.index_select(0, kept_S); };
    check.native = Merged(check.native, CompareLogits(kept(expected), kept(actual)));
    check.hf_bf16 = Merged(*check.hf_bf16, CompareLogits(kept(expected), kept(theirs)));
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
  LocalCopy model_files_, adapter_files_;
  HfSource source_;  // the reference's
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<HfReference> reference_;  // in fp32
  std::unique_ptr<HfReference> hf_bf16_;    // with dtype bf16
  Verdict verdict_;
};

}  // namespace

absl::StatusOr<Verdict> Verify(const VerifyOptions& options) {
  if (options.compare_gradients && options.dtype != at::kFloat) {
    return absl::InvalidArgumentError("gradients are compared in fp32 only");
  }
  if (options.compare_gradients && !options.adapter.empty()) {
    return absl::InvalidArgumentError("gradients are compared without an adapter only");
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

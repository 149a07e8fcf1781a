// SPDX-License-Identifier: Apache-2.0
#include "worker/train/memory_estimate.h"

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/counted.h"
#include "worker/ops/cpu/brgemm.h"
#include "worker/ops/cpu/instruction_set.h"

namespace temper {
namespace {

// As chunked_cross_entropy.cc and packed_attention.cc have them, in worker/ops and in worker/ops/cpu.
constexpr int64_t kLogitRows = 256;
constexpr int64_t kComparedRows = 128, kComparedCopies = 7;  // with a teacher
constexpr int64_t kAttentionBlock = 512;
constexpr int64_t kLogitsOfGpu = int64_t{1} << 28;  // worker/ops/cuda

int64_t Elements(const RepositoryTensor& tensor) {
  int64_t elements = 1;
  for (const int64_t size : tensor.entry.shape) elements *= size;
  return elements;
}

struct Counts {
  int64_t all = 0;
  int64_t trained = 0;
  int64_t kept_by_adapters = 0;  // activations a token
};

// Activations that an adapter keeps of each token. What it adds to an output of its own is freed at once, but between
// tensors that stay: the allocator can't give it back.
int64_t KeptByAdapter(const AdapterSite& site, const AdapterPlan& plan, int64_t copies) {
  if (site.kind == AdapterSite::Kind::kEmbedding || site.kind == AdapterSite::Kind::kHead) return 0;
  const bool experts = site.kind == AdapterSite::Kind::kExperts;
  const bool plain = !experts && !plan.peft.dora && plan.peft.dropout == 0;
  if (plain) return plan.peft.rank;  // the map's own product adds it (ops::LowRankUpdate)
  const int64_t outputs = site.out_features * (plan.peft.dora ? 3 : 1);     // what DoRA scales stays
  const int64_t inputs = plan.peft.dropout > 0 ? 2 * site.in_features : 0;  // what is dropped, what is left
  return (experts ? copies : 1) * outputs + inputs;
}

// Whether a tensor belongs to a module that is trained beside adapters.
bool IsSaved(const AdapterPlan& plan, const std::string& tensor) {
  const std::vector<std::string>& modules = plan.peft.modules_to_save;
  return std::find(modules.begin(), modules.end(), tensor.substr(0, tensor.rfind('.'))) != modules.end();
}

Counts CountParameters(const TrainJob& job, const NativeRepository& model, const AdapterPlan* plan) {
  Counts counts;
  const bool tied = model.config.tied_head;
  for (const RepositoryTensor& tensor : model.repository->tensors()) {
    // A tied head may be stored all the same.
    if (tied && tensor.entry.name == "lm_head.weight") continue;
    counts.all += Elements(tensor);
    const bool frozen = std::any_of(job.training.freeze.begin(), job.training.freeze.end(), [&](const auto& pattern) {
      return fnmatch(pattern.c_str(), tensor.entry.name.c_str(), 0) == 0;
    });
    if (plan == nullptr ? !frozen : IsSaved(*plan, tensor.entry.name)) counts.trained += Elements(tensor);
  }
  if (plan == nullptr) return counts;
  for (const AdapterSite& site : plan->sites) {
    if (site.kind == AdapterSite::Kind::kHead && site.internal == "embed") continue;  // the embedding's adapter
    const int64_t adapter = plan->peft.rank * site.experts * (site.in_features + site.out_features);
    counts.all += adapter;
    counts.trained += adapter;
    counts.kept_by_adapters += KeptByAdapter(site, *plan, model.config.moe.top_k);
  }
  return counts;
}

// Ranks of a node share its memory; a GPU's is one rank's own.
int64_t RanksTogether(const TrainJob& job) { return job.device == DeviceKind::kCpu ? job.ranks_per_node : 1; }

bool HasKernels(bool bf16) {
  return ops::cpu::Kernels() != ops::cpu::InstructionSet::kNone && (!bf16 || ops::cpu::HasBf16Brgemm());
}

// Ranks share weights and what training adds to them, but each has activations, and, beside its share, the units that
// it computes with: the ends and two blocks, with gradients of its own and those of the others in full training; and
// all units where the job says so.
void ShareAmongRanks(const TrainJob& job, const NativeRepository& model, const Counts& counts, int64_t width,
                     MemoryEstimate& memory) {
  const int64_t together = RanksTogether(job), nodes = job.ranks / together;
  for (int64_t* share : {&memory.weights, &memory.gradients, &memory.optimizer, &memory.snapshot}) *share /= nodes;
  const ModelConfig& config = model.config;
  const int64_t ends = (config.vocab_size + (config.tied_head ? 0 : config.head_rows())) * config.hidden_size;
  // A model that is not ours is one unit.
  const int64_t in_use = model.native() ? ends + 2 * (counts.all - ends) / config.num_layers : counts.all;
  memory.weights += together * (job.training.keep_weights ? counts.all : in_use) * width;
  const int64_t own = job.training.reduce_once ? counts.all : in_use;
  if (!job.lora) memory.gradients += together * (own + in_use) * 4;
  memory.activations *= together;
}

int64_t ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t number = 0;
  return file >> number ? number : 0;
}

int64_t MemInfo(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (int64_t kib = 0; file >> name >> kib; std::getline(file, unit)) {
    if (name == key) return kib * 1024;
  }
  return 0;
}

}  // namespace

MemoryEstimate EstimateMemory(const TrainJob& job, const NativeRepository& model, const AdapterPlan* plan, bool bf16,
                              bool takes_checkpoints, const std::vector<Recompute>& recompute) {
  const Counts counts = CountParameters(job, model, plan);
  const int64_t width = bf16 ? 2 : 4;  // bytes of a weight or activation
  const int64_t low = bf16 ? 2 : 0;    // the rest of a weight's master
  MemoryEstimate memory;
  memory.weights = counts.all * width + (plan != nullptr ? counts.trained : counts.all) * low;
  memory.gradients = counts.trained * 4;
  memory.optimizer = counts.trained * 8;
  if (takes_checkpoints && job.device == DeviceKind::kCpu) memory.snapshot = counts.trained * (8 + width + low);

  const ModelConfig& config = model.config;
  const AttentionConfig& attention = config.attention;
  const int64_t tokens = job.training.micro_batch_tokens;
  const int64_t hidden = config.hidden_size, inner = config.widest_feed_forward();
  const int64_t queries = attention.num_heads * attention.head_dim;
  const int64_t keys = attention.num_kv_heads * attention.head_dim;
  // A block keeps, a token: its input; q and k as rotated (and, where they are normed, as projected), v, and
  // attention's output; the sum behind it, gate and up. It makes their product and what it norms again, but for
  // experts.
  const int64_t projected = attention.qk_norm == QkNorm::kNone ? 0 : queries + keys;
  const int64_t post_normed = config.post_norm ? hidden : 0;  // after attention, and again after what is behind it
  const int64_t attention_keeps = projected + (queries + 2 * keys) + queries + post_normed;
  const int64_t rest_keeps = hidden + 2 * inner + post_normed + (config.moe.num_experts > 0 ? hidden + inner : 0);
  const int64_t adapters_keep = counts.kept_by_adapters / config.num_layers;
  int64_t kept = 0, again = 0;  // of all blocks; and what one makes again on the way back
  for (const Recompute what : recompute) {
    kept += hidden;
    if (what == Recompute::kNone) kept += attention_keeps + adapters_keep;
    if (what != Recompute::kBlock) kept += rest_keeps;
    if (what == Recompute::kAttention) again = std::max(again, attention_keeps + adapters_keep);
    if (what == Recompute::kBlock) again = std::max(again, attention_keeps + rest_keeps + adapters_keep);
  }
  // A block's way back makes gradients of the largest of these, and reads two of them at a time.
  const int64_t way_back = 2 * hidden + 6 * inner + again;
  const int64_t longest = std::min(tokens, job.data.max_sample_tokens > 0 ? job.data.max_sample_tokens : tokens);
  // Kernels make no scores, but sum gradients of keys and values for each head of queries; and keep logits once.
  const bool kernels = job.device != DeviceKind::kCpu || HasKernels(bf16);
  const int64_t scores =
      kernels ? 2 * tokens * queries * 4 : 3 * attention.num_heads * std::min(longest, kAttentionBlock) * longest * 4;
  const int64_t logits = job.device == DeviceKind::kCpu
                             ? (kernels ? 1 : 3) * std::min(tokens, kLogitRows) * config.head_rows() * 4
                             : std::min(tokens * config.head_rows(), kLogitsOfGpu) * (4 + width);
  memory.activations = tokens * width * kept + std::max(tokens * width * way_back + scores, logits);
  if (job.ranks > 1) ShareAmongRanks(job, model, counts, width, memory);
  return memory;
}

MemoryEstimate EstimateTeacher(const TrainJob& job, const NativeRepository& teacher, bool bf16) {
  TrainJob frozen = job;
  frozen.lora.emplace();
  frozen.training.keep_weights = false;
  const Counts counts = {.all = CountParameters(job, teacher, /*plan=*/nullptr).all};
  const int64_t width = bf16 ? 2 : 4, tokens = job.training.micro_batch_tokens;
  MemoryEstimate memory;
  memory.weights = counts.all * width;
  memory.activations = tokens * width * teacher.config.hidden_size +
                       kComparedCopies * std::min(tokens, kComparedRows) * teacher.config.vocab_size * 4;
  if (job.ranks > 1) ShareAmongRanks(frozen, teacher, counts, width, memory);
  return memory;
}

std::vector<Recompute> ChooseRecompute(const TrainJob& job, const NativeRepository& model, const AdapterPlan* plan,
                                       bool bf16, int64_t available, const MemoryEstimate& teacher) {
  std::vector<Recompute> blocks(model.config.num_layers, Recompute::kNone);
  if (!model.native()) return blocks;  // transformers' own way is not asked for
  switch (job.training.recompute) {
    case RecomputePolicy::kNone:
      return blocks;
    case RecomputePolicy::kAttention:
      return std::vector(blocks.size(), Recompute::kAttention);
    case RecomputePolicy::kBlock:
      return std::vector(blocks.size(), Recompute::kBlock);
    case RecomputePolicy::kAuto:
      break;
  }
  if (available <= 0) return blocks;  // the system does not tell
  const CheckpointOptions& policy = job.checkpoint_options;
  const bool checkpoints = job.validation.has_value() || policy.every_steps > 0 || policy.every_minutes > 0;
  const auto fits = [&] {
    const int64_t total = EstimateMemory(job, model, plan, bf16, checkpoints, blocks).total() + teacher.total();
    return total <= available / 10 * 9;
  };
  // Attention first: it frees more for each FLOP.
  for (const Recompute more : {Recompute::kAttention, Recompute::kBlock}) {
    for (Recompute& block : blocks) {
      if (fits()) return blocks;
      block = more;
    }
  }
  return blocks;
}

std::string Describe(const std::vector<Recompute>& recompute) {
  const auto count = [&](Recompute what) { return std::count(recompute.begin(), recompute.end(), what); };
  std::vector<std::string> parts;
  if (count(Recompute::kBlock) > 0) parts.push_back(absl::StrCat("all of ", count(Recompute::kBlock)));
  if (count(Recompute::kAttention) > 0) parts.push_back(absl::StrCat("attention of ", count(Recompute::kAttention)));
  if (parts.empty()) return "";
  return absl::StrCat(absl::StrJoin(parts, " and "), " of ", Counted(recompute.size(), "layer"),
                      " is computed again in backward");
}

int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  return file >> size >> resident ? resident * sysconf(_SC_PAGESIZE) : 0;
}

int64_t AvailableBytes() {
  int64_t available = MemInfo("MemAvailable:");
  // In a container, the group's limit; "max" reads as no number.
  const int64_t limit = ReadNumber("/sys/fs/cgroup/memory.max");
  const int64_t used = ReadNumber("/sys/fs/cgroup/memory.current");
  if (limit > 0) available = std::min(available, std::max<int64_t>(0, limit - used));
  return available;
}

}  // namespace temper

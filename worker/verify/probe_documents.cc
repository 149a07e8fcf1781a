// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/probe_documents.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <limits>
#include <map>

#include "absl/strings/str_cat.h"

namespace temper {
namespace {

constexpr int64_t kUsual = 200;
constexpr int64_t kLongest = 2048;
constexpr int64_t kBehind = 8;  // tokens that are enough to see a mechanism at work

bool DependsOnLength(const RopeConfig& rope) {
  return rope.kind == RopeConfig::Kind::kDynamic || rope.kind == RopeConfig::Kind::kLongRope;
}

// Lengths up to which a mechanism changes nothing → what it is.
std::map<int64_t, std::string> Thresholds(const ModelConfig& config) {
  std::map<int64_t, std::string> thresholds;
  for (const LayerConfig& layer : config.layers) {
    if (layer.window > 0) thresholds[layer.window] = absl::StrCat("the window of ", layer.window, " tokens");
  }
  for (const RopeConfig& rope : config.ropes) {
    const int64_t original = rope.original_max_positions;
    if (DependsOnLength(rope)) thresholds[original] = absl::StrCat("frequencies behind position ", original);
  }
  return thresholds;
}

}  // namespace

std::vector<int64_t> ProbeLengths(const ModelConfig& config) {
  int64_t longest = kUsual;
  for (const auto& [threshold, what] : Thresholds(config)) {
    if (threshold + kBehind <= kLongest) longest = std::max(longest, threshold + kBehind);
  }
  return {longest, 1, 37, 130};
}

std::vector<std::string> NotExercised(const ModelConfig& config, int64_t longest) {
  std::vector<std::string> without;
  for (const auto& [threshold, what] : Thresholds(config)) {
    if (longest <= threshold) without.push_back(what);
  }
  return without;
}

int64_t LongestPadded(const ModelConfig& config) {
  int64_t longest = std::numeric_limits<int64_t>::max();
  for (const RopeConfig& rope : config.ropes) {
    if (DependsOnLength(rope)) longest = std::min(longest, rope.original_max_positions);
  }
  return longest;
}

std::vector<at::Tensor> RandomDocuments(int64_t vocab_size, const std::vector<int64_t>& lengths, int64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  std::vector<at::Tensor> documents;
  for (const int64_t length : lengths) documents.push_back(at::randint(vocab_size, {length}, generator, at::kLong));
  return documents;
}

const std::vector<std::string>& ProbeTexts() {
  static const std::vector<std::string> texts = {
      "The tide turned before dawn, and by six o'clock the harbour was full of boats that had waited outside all "
      "night.",
      "Der Zug nach Köln hält heute nicht in Düren; bitte steigen Sie in Aachen um. Größere Verspätungen: 25 Minuten.",
      "A la orilla del río crecían álamos, y nadie recordaba quién los había plantado ni por qué.",
      "这座桥建于一九三二年，全长三百二十米，是当时城里最长的桥。",
      "今日は朝から雨が降っているので、図書館で本を読むことにした。",
      "Река вышла из берегов, и старую мельницу пришлось закрыть до весны.",
      "كانت المكتبة مفتوحة حتى منتصف الليل، لكن القاعة كانت فارغة.",
      "def area(radius: float) -> float:\n    return 3.14159 * radius ** 2  # πr²\n\nprint(f\"{area(2.5):.3f}\")\n",
      "1 + 2 + 3 = 6; 10% of 4,096 is 409.6. 🙂🚀 <tag attribute=\"x\">&amp;</tag>",
  };
  return texts;
}

}  // namespace temper

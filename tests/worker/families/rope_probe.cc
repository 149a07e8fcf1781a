// SPDX-License-Identifier: Apache-2.0
// Reads {"config": config.json, "lengths": [tokens of a document…]} from each line of its input, and answers with a
// list of the config's RoPEs: {"attention_factor": X, "inverse_frequencies": [of each length, [of each pair]]}. Driven
// by test_rope.py.
#include <ATen/ATen.h>

#include <iostream>
#include <string>

#include "worker/families/families.h"
#include "worker/ops/rope.h"

namespace temper {
namespace {

using Json = nlohmann::ordered_json;

Json Describe(const RopeConfig& rope, int64_t head_dim, const Json& lengths) {
  Json frequencies = Json::array();
  for (const Json& length : lengths) {
    const at::Tensor values_h = ops::RopeInverseFrequencies(rope, head_dim, length.get<int64_t>());
    frequencies.push_back(
        std::vector<float>(values_h.data_ptr<float>(), values_h.data_ptr<float>() + values_h.numel()));
  }
  return {{"attention_factor", rope.attention_factor}, {"inverse_frequencies", frequencies}};
}

absl::StatusOr<Json> Answer(const Json& question) {
  const absl::StatusOr<const FamilySpec*> family = FindFamily(question["config"]);
  if (!family.ok()) return family.status();
  const absl::StatusOr<ModelConfig> model = ConfigureModel(**family, question["config"]);
  if (!model.ok()) return model.status();
  Json ropes = Json::array();
  for (const RopeConfig& rope : model->ropes) {
    ropes.push_back(Describe(rope, model->attention.head_dim, question["lengths"]));
  }
  return ropes;
}

int Main() {
  for (std::string line; std::getline(std::cin, line);) {
    const absl::StatusOr<Json> answer = Answer(Json::parse(line));
    if (!answer.ok()) {
      std::cerr << "rope_probe: " << answer.status().message() << "\n";
      return 1;
    }
    std::cout << *answer << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace temper

int main() { return temper::Main(); }

// SPDX-License-Identifier: Apache-2.0
#include "worker/verify/layer_range.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace temper {
namespace {

using nlohmann::ordered_json;

TEST(SplitLayersTest, LastPartMayBeShorter) {
  const std::vector<LayerRange> parts = SplitLayers(7, 3);
  ASSERT_EQ(parts.size(), 3);
  EXPECT_EQ(parts[1].begin, 3);
  EXPECT_EQ(parts[1].count, 3);
  EXPECT_EQ(parts[2].begin, 6);
  EXPECT_EQ(parts[2].count, 1);
}

TEST(ConfigOfLayersTest, CutsOutWhatIsSaidOfEachLayer) {
  const ordered_json whole = {{"num_hidden_layers", 5},
                              {"layer_types", {"a", "b", "c", "d", "e"}},
                              {"no_rope_layers", {1, 1, 0, 1, 0}},
                              {"mlp_only_layers", {0, 3, 4}},
                              {"eos_token_id", {1, 2, 3, 4, 5}}};
  const ordered_json part = {{"num_hidden_layers", 3},
                             {"layer_types", {"c", "d", "e"}},
                             {"no_rope_layers", {0, 1, 0}},
                             {"mlp_only_layers", {1, 2}},
                             {"eos_token_id", {1, 2, 3, 4, 5}}};
  EXPECT_EQ(ConfigOfLayers(whole, {2, 3}), part);
}

TEST(ConfigOfLayersTest, NothingSaid_NothingAdded) {
  EXPECT_EQ(ConfigOfLayers({{"num_hidden_layers", 5}, {"layer_types", nullptr}}, {0, 2}),
            ordered_json({{"num_hidden_layers", 2}, {"layer_types", nullptr}}));
}

}  // namespace
}  // namespace temper

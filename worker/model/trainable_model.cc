// SPDX-License-Identifier: Apache-2.0
#include "worker/model/trainable_model.h"

#include <algorithm>

namespace temper {

int FirstTrainedUnit(const TrainableModel& model) {
  if (model.embedding_trainable()) return 0;
  const auto trained = [&](int unit) {
    return std::ranges::any_of(model.unit_parameters(unit), [](const Parameter* each) { return each->trainable; });
  };
  int unit = 0;
  while (unit < model.num_units() && !trained(unit)) ++unit;
  return unit;
}

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "temper/v1/job.pb.h"

namespace temper {

// The least that a job must say.
inline v1::JobSpec ValidSpec() {
  v1::JobSpec spec;
  spec.mutable_model()->set_uri("/models/tiny");
  spec.mutable_data()->set_uri("file:///data/train.jsonl");
  spec.mutable_training()->set_steps(100);
  spec.mutable_output()->set_uri("/out");
  return spec;
}

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "temper/v1/training_service.pb.h"

namespace temper {

// A message as the web page reads it: JSON with the field names of the proto, 64-bit integers as strings, and without
// what is absent.
std::string ToJson(const google::protobuf::Message& message);

// "[…]" of values that are JSON already.
std::string JsonArray(const std::vector<std::string>& values);

// What a list shows of a job: without its specification's details, samples and verdicts.
v1::Job Summary(const v1::Job& job);

// Steps by column, {"step": […], "loss": […], …}, which is a tenth of them one by one. What is not known or not finite
// is null.
std::string MetricsJson(const v1::QueryMetricsResponse& metrics);

// When steps ended, in seconds since the job was created. One that is taken again takes the place of the first.
class StepTimes {
 public:
  void Add(int64_t step, double seconds);
  // {"step": […], "seconds": […]}, at most 10,000 of each.
  std::string Json() const;

 private:
  std::vector<std::pair<int64_t, double>> times_;  // by step
};

}  // namespace temper

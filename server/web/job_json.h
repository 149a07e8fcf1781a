// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>

#include <string>
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

}  // namespace temper

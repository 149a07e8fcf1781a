// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/rpc/status.h"
#include "google/protobuf/message.h"

namespace temper {

// What a newer client may have put into `message` that this build can't know: fields without a name and values of enums
// without a name. protobuf keeps both silently; a job must not run without them. Paths begin with `path`.
std::vector<FieldViolation> UnknownValues(const google::protobuf::Message& message, const std::string& path);

}  // namespace temper

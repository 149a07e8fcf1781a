// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper {

// Where a status from Python has the exception's traceback.
inline constexpr char kTracebackPayload[] = "temper/python-traceback";

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace temper {

// config.json of an export: the source's, every key kept, with whatever transformers 4 and 5 spell differently in both
// spellings. `dtype` ("bfloat16") is used when the source names none. A `quantization_config` is dropped unless the
// export is `quantized`.
nlohmann::ordered_json ExportConfig(nlohmann::ordered_json source, const std::string& dtype, bool quantized = false);

// generation_config.json for a source without one, as transformers derives it: without it, servers would not know where
// to stop.
nlohmann::ordered_json DeriveGenerationConfig(const nlohmann::ordered_json& config);

}  // namespace temper

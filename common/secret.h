// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace temper {

// Random bytes of OpenSSL's generator, as lower-case hex digits: for what nobody may guess. Any thread.
std::string RandomHex(size_t bytes);

// 256 random bits. Its SHA-256 may be kept in its place: nobody finds the secret again by trying, so it needs none of
// the slow hashes that protect what people think up.
inline std::string NewSecret() { return RandomHex(32); }

// Whether both are the same, in a time that depends on their lengths alone.
bool EqualSecrets(std::string_view a, std::string_view b);

}  // namespace temper

// SPDX-License-Identifier: Apache-2.0
#include "common/secret.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <cstdlib>

#include "absl/strings/escaping.h"

namespace temper {

std::string RandomHex(size_t bytes) {
  std::string random(bytes, '\0');
  // A process without randomness can't keep anything secret.
  if (RAND_bytes(reinterpret_cast<unsigned char*>(random.data()), static_cast<int>(bytes)) != 1) std::abort();
  return absl::BytesToHexString(random);
}

bool EqualSecrets(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace temper

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <array>

#include "serve/http/http.h"

namespace frugal::serve {

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> hash_a, hash_b;
  ::SHA256(reinterpret_cast<const unsigned char*>(a.data()), a.size(), hash_a.data());
  ::SHA256(reinterpret_cast<const unsigned char*>(b.data()), b.size(), hash_b.data());
  return ::CRYPTO_memcmp(hash_a.data(), hash_b.data(), hash_a.size()) == 0;
}

}  // namespace frugal::serve

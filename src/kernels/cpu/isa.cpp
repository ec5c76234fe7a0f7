#include "kernels/cpu/isa.h"

#include <atomic>
#include <cstdlib>

#include "base/error.h"
#include "kernels/cpu/kernel_table.h"

namespace frugal::kernels {
namespace {

const KernelTable* table_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512) return &avx512::kTable;
  if (isa == Isa::avx2) return &avx2::kTable;
#endif
  return isa == Isa::scalar ? &scalar::kTable : nullptr;
}

bool machine_has(Isa isa) {
  if (isa == Isa::scalar) return true;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (isa == Isa::avx2) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

const KernelTable* checked_table(Isa isa, const char* source) {
  if (!machine_has(isa)) {
    fail(ErrorKind::unsupported, "{}: this machine has no {} (it has: {})", source, to_string(isa), cpu_features());
  }
  return table_of(isa);
}

const KernelTable* initial_table() {
  const char* forced = std::getenv("FRUGAL_ISA");
  if (forced == nullptr || *forced == '\0') return table_of(available_isas().back());
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    if (to_string(isa) == forced) return checked_table(isa, "FRUGAL_ISA");
  }
  fail(ErrorKind::invalid_input, "FRUGAL_ISA: is \"{}\", must be scalar, avx2 or avx512", printable(forced));
}

std::atomic<const KernelTable*> current{nullptr};

}  // namespace

std::string_view to_string(Isa isa) {
  switch (isa) {
    case Isa::scalar: return "scalar";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
  }
  return "?";
}

const KernelTable& kernels() {
  const KernelTable* table = current.load(std::memory_order_acquire);
  if (table == nullptr) {
    table = initial_table();
    current.store(table, std::memory_order_release);
  }
  return *table;
}

Isa active_isa() { return kernels().isa; }

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    if (machine_has(isa)) isas.push_back(isa);
  }
  return isas;
}

void set_isa(Isa isa) { current.store(checked_table(isa, "set_isa"), std::memory_order_release); }

void override_kernels(const KernelTable* table) { current.store(table, std::memory_order_release); }

std::string cpu_features() {
  std::string text;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto add = [&](bool has, std::string_view name) {
    if (!has) return;
    if (!text.empty()) text += ' ';
    text += name;
  };
  add(__builtin_cpu_supports("avx2"), "avx2");
  add(__builtin_cpu_supports("fma"), "fma");
  add(__builtin_cpu_supports("f16c"), "f16c");
  add(__builtin_cpu_supports("avx512f"), "avx512f");
  add(__builtin_cpu_supports("avx512bw"), "avx512bw");
  add(__builtin_cpu_supports("avx512vl"), "avx512vl");
  add(__builtin_cpu_supports("avx512dq"), "avx512dq");
  add(__builtin_cpu_supports("avx512vnni"), "avx512vnni");
  add(__builtin_cpu_supports("avx512bf16"), "avx512bf16");
#endif
  return text.empty() ? "none" : text;
}

}  // namespace frugal::kernels

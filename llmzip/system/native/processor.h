// The instructions that this x86-64 processor has and its operating system lets programs use; must not know what for.
// CPUID is asked directly: where Zig links, __builtin_cpu_supports knows of nothing.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#include <cstdint>

namespace {

struct Processor {
    bool avx2, fma, bmi;  // bmi: BMI1, BMI2 and LZCNT
    bool avx512;          // F, BW, DQ and VL
    bool vnni, amx;       // VNNI of AVX-512; tiles with int8
};

// Registers that the operating system saves, as bits; `known`: whether the processor can say so.
inline uint32_t saved_registers(bool known) {
    if (!known) return 0;
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
#if defined(__APPLE__)
    low |= 0xE0;  // macOS saves those of AVX-512 from their first use on
#endif
    return low;
}

inline Processor processor() {
    uint32_t a, b, c, d, extended = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return {};
    const auto has = [](uint32_t word, int bit) { return (word >> bit & 1) != 0; };
    const uint32_t saved = saved_registers(has(c, 27));
    const bool vectors = (saved & 0x6) == 0x6 && has(c, 28), wide = vectors && (saved & 0xE0) == 0xE0;
    const bool tiles = (saved & 0x60000) == 0x60000, fma = vectors && has(c, 12);
    if (__get_cpuid(0x80000001, &a, &b, &c, &d)) extended = c;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return {};
    return {
        vectors && has(b, 5),
        fma,
        has(b, 3) && has(b, 8) && has(extended, 5),
        wide && has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31),
        wide && has(c, 11),
        tiles && has(d, 24) && has(d, 25),
    };
}

}  // namespace
#endif

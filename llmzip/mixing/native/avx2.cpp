// The mixer for AVX2.
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,lzcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,lzcnt")
#endif
#define LANES 8
#define NAME(x) llmzip_mixer_avx2_##x
#include "mixer.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

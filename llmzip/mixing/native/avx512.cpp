// The mixer for AVX-512.
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,lzcnt,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif
#define LANES 16
#define NAME(x) llmzip_mixer_avx512_##x
#include "mixer.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

// The kernels for AVX-512 with VNNI.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")
#endif
#define LEVEL 2
#define NAME(x) llmzip_avx512_##x
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

// The kernels for processors with AVX2.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#define LEVEL 1
#define NAME(x) llmzip_avx2_##x
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

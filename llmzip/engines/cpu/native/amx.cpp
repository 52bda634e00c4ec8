// The kernels for processors with AMX, and AVX-512 with VNNI.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,amx-tile,amx-int8"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,amx-tile,amx-int8")
#endif
#define LEVEL 3
#define NAME(x) llmzip_amx_##x
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

// The kernels for whatever the compiler's target has.
#define LEVEL 0
#define NAME(x) llmzip_plain_##x
#include "kernels.h"

// The best level that this processor has: 2, 1 or 0.
extern "C" int llmzip_best_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma"))
        return 2;
    if (__builtin_cpu_supports("avx2")) return 1;
#endif
    return 0;
}

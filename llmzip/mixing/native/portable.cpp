// The mixer for any processor.
#define NAME(x) llmzip_mixer_portable_##x
#include "mixer.h"

// Of which sources this was built.
extern "C" const char* llmzip_sources(void) { return LLMZIP_SOURCES; }

// The best of the levels: 2 for AVX-512, 1 for AVX2, 0 for neither.
extern "C" int llmzip_best_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return 1;
#endif
    return 0;
}

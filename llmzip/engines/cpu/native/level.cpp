// Finds out which of the kernels this processor can run.

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

// Asks Linux for the tiles of AMX, which a process gets only on request.
static bool may_use_tiles() {
    const int request_permission = 0x1023, tile_data = 18;
    return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
           syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#else
static bool may_use_tiles() { return false; }
#endif

// Returns the digest of the sources from which this was built.
extern "C" const char* llmzip_sources(void) { return LLMZIP_SOURCES; }

// Returns the best level: 3, 2 or 1 as in kernels.h, 0 for none.
extern "C" int llmzip_best_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma"))
        return may_use_tiles() ? 3 : 2;
    if (__builtin_cpu_supports("avx2")) return 1;
#endif
    return 0;
}

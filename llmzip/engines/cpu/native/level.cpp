// Finds out which of the kernels this processor can run.

#include "../../../system/native/processor.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

// Asks Linux for the tiles of AMX, which a process gets only on request.
static bool may_use_tiles() {
    const int request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#else
static bool may_use_tiles() { return false; }
#endif

// Returns the digest of the sources from which this was built.
extern "C" const char* llmzip_sources(void) { return LLMZIP_SOURCES; }

// Returns the best level: 3, 2 or 1 as in kernels.h, 0 for none.
extern "C" int llmzip_best_level(void) {
#if defined(__x86_64__)
    const Processor has = processor();
    if (has.avx512 && has.vnni && has.fma) return has.amx && may_use_tiles() ? 3 : 2;
    if (has.avx2) return 1;
#endif
    return 0;
}

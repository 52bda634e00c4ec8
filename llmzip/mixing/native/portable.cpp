// The mixer for any processor.
#define NAME(x) llmzip_mixer_portable_##x
#include "mixer.h"
#include "../../system/native/processor.h"

// Digest of the sources that this was built from.
extern "C" const char* llmzip_sources(void) { return LLMZIP_SOURCES; }

// The best of the levels: 2 for AVX-512, 1 for AVX2, 0 for neither.
extern "C" int llmzip_best_level(void) {
#if defined(__x86_64__)
    const Processor has = processor();
    if (has.avx512 && has.bmi) return 2;
    if (has.avx2 && has.bmi) return 1;
#endif
    return 0;
}

// Vectors of the machine's length, written as the vector types of GCC and Clang, and as intrinsics where these cannot
// express an operation. kernels.h includes this file once for each LEVEL.

#include <cmath>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline))  // compilers find better code for a loop that stands alone

namespace {

const int LANES = LEVEL >= 2 ? 16 : 8;

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef int16_t vs __attribute__((vector_size(4 * LANES)));

const float TINY = 0x1p-40f;
const float ROUND = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds |x| <= 2^22 half to even
const int EXP2_LAST = 22527;
const int BLOCK_KEYS = 16;  // a multiple of LANES

template <class V, class T> INLINE V load(const T* from) {
    V v;
    memcpy(&v, from, sizeof v);
    return v;
}

template <class V, class T> INLINE void store(T* to, V v) { memcpy(to, &v, sizeof v); }

INLINE vf splat(float x) { return vf{} + x; }
INLINE vi splat(int32_t x) { return vi{} + x; }
INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }
INLINE vi to_int(vf x) { return __builtin_convertvector(x, vi); }  // towards zero
INLINE vf rounded(vf x) { return (x + ROUND) - ROUND; }
INLINE vi magnitude(vf x) { return (vi)x & 0x7fffffff; }  // as integers, magnitudes compare like floats
INLINE vi larger(vi a, vi b) { return a > b ? a : b; }
INLINE vf larger(vf a, vf b) { return a > b ? a : b; }
INLINE vf smaller(vf a, float b) { return a < b ? a : splat(b); }

INLINE float peak_of(vi magnitudes) {
    int32_t largest = magnitudes[0];
    for (int i = 1; i < LANES; i++) largest = magnitudes[i] > largest ? magnitudes[i] : largest;
    float value;
    memcpy(&value, &largest, 4);
    return value > TINY ? value : TINY;
}

INLINE float peak_of(vf x) {
    float largest = x[0];
    for (int i = 1; i < LANES; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

INLINE int64_t sum_of(vi x) {
    int64_t sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

INLINE vf gather(const float* table, vi index) {
#if LEVEL >= 2
    return (vf)_mm512_i32gather_ps((__m512i)index, table, 4);
#else
    return (vf)_mm256_i32gather_ps(table, (__m256i)index, 4);
#endif
}

INLINE vi gather(const int32_t* table, vi index) { return (vi)gather((const float*)table, index); }

// Widens int8; compilers would convert the lanes one by one (GCC 12).
INLINE vi widened(const int8_t* from) {
#if LEVEL >= 2
    return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from));
#else
    return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from));
#endif
}

// Returns the next two values of LANES keys, as pairs of int16.
INLINE vs pairs(const int8_t* from) {
#if LEVEL >= 2
    return (vs)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)from));
#else
    return (vs)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)from));
#endif
}

// Stores values as int16 or int8, in which they fit.
INLINE void store_narrow(int16_t* to, vi x) {
#if LEVEL >= 2
    _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi32_epi16((__m512i)x));
#else
    _mm_storeu_si128((__m128i*)to, _mm_packs_epi32(_mm256_castsi256_si128((__m256i)x),
                                                   _mm256_extracti128_si256((__m256i)x, 1)));
#endif
}

INLINE void store_narrow(int8_t* to, vi x) {
#if LEVEL >= 2
    _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)x));
#else
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
    _mm_storel_epi64((__m128i*)to, _mm_packs_epi16(words, words));
#endif
}

// Adds to each lane the product of a pair with the pair of int16 in `query`.
INLINE vi add_products(vi sum, vs keys, int32_t query) {
#if LEVEL >= 2
    return (vi)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)keys, _mm512_set1_epi32(query));
#else
    return sum + (vi)_mm256_madd_epi16((__m256i)keys, _mm256_set1_epi32(query));
#endif
}

// Bits of a weight in `add_weighted`: with 7, without VNNI, two products fit into int16.
const int WEIGHT_BITS = LEVEL >= 2 ? 8 : 7;

// Adds to each lane the products of four bytes with the four weights in `four`, which are unsigned.
INLINE vi add_weighted(vi sum, vi bytes, int32_t four) {
#if LEVEL >= 2
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(four), (__m512i)bytes);
#else
    const __m256i products = _mm256_maddubs_epi16(_mm256_set1_epi32(four), (__m256i)bytes);
    return sum + (vi)_mm256_madd_epi16(products, _mm256_set1_epi16(1));
#endif
}

}  // namespace

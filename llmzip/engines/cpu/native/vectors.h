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
const int EXP2_LAST = 22527;
const int BLOCK_KEYS = 16;                 // a multiple of LANES
const int BLOCKS = LEVEL >= 2 ? 2 : 1;     // vectors of keys that are multiplied at once
const int KEY_BYTES = LEVEL >= 2 ? 4 : 2;  // of a key that are stored together

template <class V, class T> INLINE V load(const T* from) {
    V v;
    memcpy(&v, from, sizeof v);
    return v;
}

template <class V, class T> INLINE void store(T* to, V v) { memcpy(to, &v, sizeof v); }

// Prefetches bytes into the second cache.
INLINE void fetch(const int8_t* bytes, int64_t count) {
    for (int64_t i = 0; i < count; i += 64) __builtin_prefetch(bytes + i, 0, 2);
}

INLINE vf splat(float x) { return vf{} + x; }
INLINE vi splat(int32_t x) { return vi{} + x; }
INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }
INLINE vi to_int(vf x) { return __builtin_convertvector(x, vi); }  // towards zero

// Rounds to the nearest integer, halves to even, as processors do by default.
INLINE vi nearest(vf x) {
#if LEVEL >= 2
    return (vi)_mm512_cvtps_epi32((__m512)x);
#else
    return (vi)_mm256_cvtps_epi32((__m256)x);
#endif
}

INLINE vi magnitude(vf x) { return (vi)x & 0x7fffffff; }  // as integers, magnitudes compare like floats
INLINE vi larger(vi a, vi b) { return a > b ? a : b; }
INLINE vf larger(vf a, vf b) { return a > b ? a : b; }
INLINE vf smaller(vf a, float b) {
#if LEVEL >= 2
    return (vf)_mm512_min_ps((__m512)a, (__m512)splat(b));  // the compiler would compare and blend
#else
    return a < b ? a : splat(b);
#endif
}

// Return the largest lane, all bits of the lanes, and their sum.
INLINE float peak_of(vf x) {
#if LEVEL >= 2
    return _mm512_reduce_max_ps((__m512)x);
#else
    float largest = x[0];
    for (int i = 1; i < LANES; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
#endif
}

INLINE int32_t or_of(vi x) {
#if LEVEL >= 2
    return _mm512_reduce_or_epi32((__m512i)x);
#else
    int32_t all = 0;
    for (int i = 0; i < LANES; i++) all |= x[i];
    return all;
#endif
}

INLINE int64_t sum_of(vi x) {
#if LEVEL >= 2
    return _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256((__m512i)x)),
                                                    _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64((__m512i)x, 1))));
#else
    int64_t sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
#endif
}

// Returns the largest of magnitudes, which are not negative, at least TINY.
INLINE float peak_of(vi magnitudes) { 
    const float value = peak_of((vf)magnitudes);
    return value > TINY ? value : TINY;
}

INLINE vf gather(const float* table, vi index) {
#if LEVEL >= 2
    return (vf)_mm512_i32gather_ps((__m512i)index, table, 4);
#else
    return (vf)_mm256_i32gather_ps(table, (__m256i)index, 4);
#endif
}

INLINE vi gather(const int32_t* table, vi index) { return (vi)gather((const float*)table, index); }

#if LEVEL >= 2
// Returns entries of tables of two vectors, by the five lowest bits of an index.
INLINE vi look_up(const vi* table, vi index) {
    return (vi)_mm512_permutex2var_epi32((__m512i)table[0], (__m512i)index, (__m512i)table[1]);
}

INLINE vf look_up(const vf* table, vi index) { return (vf)look_up((const vi*)table, index); }
#endif

// Widens int8; compilers would convert the lanes one by one (GCC 12).
INLINE vi widened(const int8_t* from) {
#if LEVEL >= 2
    return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from));
#else
    return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from));
#endif
}

#if LEVEL == 1
// Returns the next two values of LANES keys, as pairs of int16.
INLINE vs pairs(const int8_t* from) { return (vs)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)from)); }
#endif

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

#if LEVEL == 1
// Adds to each lane the product of a pair with the pair of int16 in `query`.
INLINE vi add_products(vi sum, vs keys, int32_t query) {
    return sum + (vi)_mm256_madd_epi16((__m256i)keys, _mm256_set1_epi32(query));
}
#endif

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

#if LEVEL >= 2
// Adds to each lane the products of four bytes, which are unsigned, with the four in `four`, which are not.
INLINE vi add_signed(vi sum, vi bytes, int32_t four) {
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)bytes, _mm512_set1_epi32(four));
}
#endif

// Stores the first and the second WEIGHT_BITS bits of the lanes of a, then of b.
INLINE void store_planes(uint8_t* first, uint8_t* second, vi a, vi b) {
#if LEVEL >= 2
    // Packing interleaves quarters of vectors: low bytes of a, of b, high bytes of a, of b.
    const __m512i words = _mm512_packus_epi32((__m512i)(a & 0xFFFF), (__m512i)(b & 0xFFFF));
    const __m512i low = _mm512_and_si512(words, _mm512_set1_epi16(0xFF)), high = _mm512_srli_epi16(words, 8);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i both = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
    _mm256_storeu_si256((__m256i*)first, _mm512_castsi512_si256(both));
    _mm256_storeu_si256((__m256i*)second, _mm512_extracti64x4_epi64(both, 1));
#else
    const int32_t bits = (1 << WEIGHT_BITS) - 1;
    store_narrow((int8_t*)first, a & bits);
    store_narrow((int8_t*)first + LANES, b & bits);
    store_narrow((int8_t*)second, (a >> WEIGHT_BITS) & bits);
    store_narrow((int8_t*)second + LANES, (b >> WEIGHT_BITS) & bits);
#endif
}

// Lists which of `count` groups of four bytes are not 0, count a multiple of LANES / 4. Returns how many; the list has
// room for LANES more.
INLINE int64_t list_nonzero(const uint8_t* bytes, int64_t count, int32_t* list) {
    int64_t listed = 0;
#if LEVEL >= 2
    vi numbers;
    for (int i = 0; i < LANES; i++) numbers[i] = i;
    for (int64_t i = 0; i < count; i += LANES, numbers += LANES) {
        const __mmask16 inside = count - i < LANES ? (1 << (count - i)) - 1 : -1;
        const __m512i groups = _mm512_maskz_loadu_epi32(inside, bytes + 4 * i);
        const __mmask16 found = _mm512_test_epi32_mask(groups, groups);
        store(list + listed, (vi)_mm512_maskz_compress_epi32(found, (__m512i)numbers));
        listed += __builtin_popcount(found);
    }
#else
    for (int64_t i = 0; i < count; i++) {
        int32_t four;
        memcpy(&four, bytes + 4 * i, 4);
        list[listed] = (int32_t)i;
        listed += four != 0;
    }
#endif
    return listed;
}

}  // namespace

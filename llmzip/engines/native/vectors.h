// Vectors of 16 lanes in the compiler's own terms (GCC and Clang), which splits them where the machine has shorter ones;
// intrinsics only where those do not say it. Included once for each LEVEL (kernels.h).

#include <cmath>
#include <cstdint>
#include <cstring>

#if LEVEL > 0
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

namespace {

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef int16_t vs __attribute__((vector_size(64)));
typedef int16_t vh __attribute__((vector_size(32)));
typedef int8_t vb __attribute__((vector_size(16)));
typedef int8_t vb32 __attribute__((vector_size(32)));

const int LANES = 16;
const float TINY = 0x1p-40f;
const float ROUND = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds |x| <= 2^22 half to even
const int EXP2_LAST = 22527;
const int BLOCK_KEYS = 16;

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
INLINE vi magnitude(vf x) { return (vi)x & 0x7fffffff; }  // as integers these compare like the floats
INLINE vi larger(vi a, vi b) { return a > b ? a : b; }
INLINE vf larger(vf a, vf b) { return a > b ? a : b; }
INLINE vf smaller(vf a, float b) { return a < b ? a : splat(b); }

INLINE float peak_of(vi magnitudes) {
    int32_t most = magnitudes[0];
    for (int i = 1; i < LANES; i++) most = magnitudes[i] > most ? magnitudes[i] : most;
    float value;
    memcpy(&value, &most, 4);
    return value > TINY ? value : TINY;
}

INLINE float peak_of(vf x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
    return most;
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
    vf found;
    for (int i = 0; i < LANES; i++) found[i] = table[index[i]];
    return found;
#endif
}

INLINE vi gather(const int32_t* table, vi index) {
#if LEVEL >= 2
    return (vi)_mm512_i32gather_epi32((__m512i)index, table, 4);
#else
    vi found;
    for (int i = 0; i < LANES; i++) found[i] = table[index[i]];
    return found;
#endif
}

// 16 keys' next two values, as int16 pairs.
INLINE vs pairs(const int8_t* from) { return __builtin_convertvector(load<vb32>(from), vs); }

// Adds to each lane the product of a pair with the pair of int16 in `query`.
INLINE vi add_products(vi sum, vs keys, int32_t query) {
#if LEVEL >= 2
    return (vi)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)keys, _mm512_set1_epi32(query));
#elif LEVEL == 1
    __m256i half[2], q = _mm256_set1_epi32(query);
    memcpy(half, &keys, 64);
    half[0] = _mm256_madd_epi16(half[0], q);
    half[1] = _mm256_madd_epi16(half[1], q);
    return sum + load<vi>(half);
#else
    int16_t q[2];
    memcpy(q, &query, 4);
    for (int i = 0; i < LANES; i++) sum[i] += keys[2 * i] * q[0] + keys[2 * i + 1] * q[1];
    return sum;
#endif
}

// a * b + c of integers whose results stay below 2^24: exact, whether it is rounded once or twice.
INLINE vf add_product(vf a, float b, vf c) {
#if LEVEL >= 2
    return (vf)_mm512_fmadd_ps((__m512)a, _mm512_set1_ps(b), (__m512)c);
#else
    return a * b + c;
#endif
}

}  // namespace

// The exact arithmetic between the integer products, for one instruction set: included by one file for each, which
// defines NAME(x), and LEVEL as 2 (AVX-512 with VNNI), 1 (AVX2) or 0 (whatever the compiler's target has).
//
// Rules (docs/numerics.md): each float operation rounds once, in the order of section 6; sums are sums of integers.
// Build with -ffp-contract=off and without any -ffast-math. Nothing here allocates, and nothing knows Python.
// Vectors of 16 lanes are the compiler's own (GCC and Clang); where the machine has shorter ones it splits them.

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
#if LEVEL == 2
    return (vf)_mm512_i32gather_ps((__m512i)index, table, 4);
#else
    vf found;
    for (int i = 0; i < LANES; i++) found[i] = table[index[i]];
    return found;
#endif
}

INLINE vi gather(const int32_t* table, vi index) {
#if LEVEL == 2
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
#if LEVEL == 2
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
#if LEVEL == 2
    return (vf)_mm512_fmadd_ps((__m512)a, _mm512_set1_ps(b), (__m512)c);
#else
    return a * b + c;
#endif
}

// Sum of squares of round(x * factor), |round| <= 2047, `size` a multiple of 16 and at most 2^17.
INLINE float squares(const float* x, int64_t size, float factor) {
    int64_t total = 0;
    for (int64_t begin = 0; begin < size; begin += 512 * LANES) {  // 2047^2 * 512 < 2^31
        vi part = {};
        for (int64_t i = begin; i < size && i < begin + 512 * LANES; i += LANES) {
            vi q = to_int(rounded(load<vf>(x + i) * factor));
            part += q * q;
        }
        total += sum_of(part);
    }
    return (float)total;
}

// numerics 6.2: the factor 1 / r of a row.
INLINE float norm_factor(const float* x, int64_t size, float eps, float inverse_size) {
    vi most = {};
    for (int64_t i = 0; i < size; i += LANES) most = larger(most, magnitude(load<vf>(x + i)));
    const float peak = peak_of(most), unit = peak * (1.0f / 2047.0f);
    const float mean = (squares(x, size, 2047.0f / peak) * inverse_size) * (unit * unit);
    return 1.0f / (float)std::sqrt((double)(mean + eps));
}

// numerics 2: Quantise(x, 127).
INLINE float quantise(const float* x, int64_t size, int8_t* q) {
    vi most = {};
    for (int64_t i = 0; i < size; i += LANES) most = larger(most, magnitude(load<vf>(x + i)));
    const float peak = peak_of(most), factor = 127.0f / peak;
    for (int64_t i = 0; i < size; i += LANES)
        store(q + i, __builtin_convertvector(to_int(rounded(load<vf>(x + i) * factor)), vb));
    return peak * (1.0f / 127.0f);
}

INLINE void norm_quantise(const float* x, int64_t size, const float* weight, float eps, float inverse_size, float* row,
                          int8_t* q, float* scale) {
    const float factor = norm_factor(x, size, eps, inverse_size);
    for (int64_t i = 0; i < size; i += LANES) store(row + i, (load<vf>(x + i) * factor) * load<vf>(weight + i));
    *scale = quantise(row, size, q);
}

INLINE vf product(const int32_t* sums, float scale, const float* weight_scale) {
    return (to_float(load<vi>(sums)) * scale) * load<vf>(weight_scale);
}

}  // namespace

extern "C" {

// x[n, K] = embedding rows of ids, times gain.
void NAME(embed)(int64_t n, int64_t size, const int64_t* ids, const int8_t* rows, const float* scales, float gain,
                 float* x) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < size; i += LANES) {
            vi q = __builtin_convertvector(load<vb>(rows + ids[t] * size + i), vi);
            vf y = to_float(q) * scales[ids[t]];
            store(x + t * size + i, gain == 1.0f ? y : y * gain);
        }
}

// q[n, K], scale[n]: the norm of x, quantised. row: room for K.
void NAME(norm)(int64_t n, int64_t size, const float* x, const float* weight, float eps, float inverse_size, float* row,
                int8_t* q, float* scale) {
    for (int64_t t = 0; t < n; t++)
        norm_quantise(x + t * size, size, weight, eps, inverse_size, row, q + t * size, scale + t);
}

// x += what a linear gave; then its norm, unless weight is null.
void NAME(add_norm)(int64_t n, int64_t size, float* x, const int32_t* sums, const float* scale_in,
                    const float* weight_scale, const float* weight, float eps, float inverse_size, float* row,
                    int8_t* q, float* scale) {
    for (int64_t t = 0; t < n; t++) {
        float* here = x + t * size;
        for (int64_t i = 0; i < size; i += LANES)
            store(here + i, load<vf>(here + i) + product(sums + t * size + i, scale_in[t], weight_scale + i));
        if (weight) norm_quantise(here, size, weight, eps, inverse_size, row, q + t * size, scale + t);
    }
}

// q[n, M], scale[n]: silu(gate) * up, quantised, from the sums [n, 2 M] of a linear. row: room for M.
void NAME(gate)(int64_t n, int64_t size, const int32_t* sums, const float* scale_in, const float* weight_scale,
                float log2e, const float* exp2_unit, float* row, int8_t* q, float* scale) {
    for (int64_t t = 0; t < n; t++) {
        const int32_t* here = sums + t * 2 * size;
        for (int64_t i = 0; i < size; i += LANES) {
            vf g = product(here + i, scale_in[t], weight_scale + i);
            vf up = product(here + size + i, scale_in[t], weight_scale + size + i);
            vf steps = (vf)magnitude(g) * log2e;
            vf e = gather(exp2_unit, to_int(smaller(steps + 0.5f, (float)EXP2_LAST)));
            vf u = g < 0.0f ? g * e : g;
            store(row + i, (u / (e + 1.0f)) * up);
        }
        scale[t] = quantise(row, size, q + t * size);
    }
}

// out[n, V]: masses from the sums [n, V] of the head (numerics 6.7). row: room for V + 16.
void NAME(masses)(int64_t n, int64_t size, const int32_t* sums, const float* scale_in, float gain,
                  const float* weight_scale, const int32_t* exp2, float* row, int32_t* out) {
    const int64_t whole = size - size % LANES;
    for (int64_t t = 0; t < n; t++) {
        const int32_t* here = sums + t * size;
        int32_t* to = out + t * size;
        const float scale = scale_in[t] * gain;
        float most = ((float)here[0] * scale) * weight_scale[0];
        vf most_lanes = splat(most);
        for (int64_t i = 0; i < whole; i += LANES) {
            vf z = product(here + i, scale, weight_scale + i);
            store(row + i, z);
            most_lanes = larger(z, most_lanes);
        }
        most = peak_of(most_lanes);
        for (int64_t i = whole; i < size; i++) {
            row[i] = ((float)here[i] * scale) * weight_scale[i];
            most = row[i] > most ? row[i] : most;
        }
        const float peak = most + 0.5f;
        for (int64_t i = 0; i < whole; i += LANES)
            store(to + i, gather(exp2, to_int(smaller(peak - load<vf>(row + i), (float)EXP2_LAST))));
        for (int64_t i = whole; i < size; i++) {
            const float steps = peak - row[i];
            to[i] = exp2[steps < (float)EXP2_LAST ? (int)steps : EXP2_LAST];
        }
    }
}

// What attention keeps of a layer, for some rows: keys [rows, G, blocks, D / 2, 16, 2] int8, their positions in blocks
// of 16; values [rows, G, slots, D] int8; scales [rows, G, slots]; peak [rows, G], of all values' scales so far.
struct Store {
    int8_t* keys;
    int8_t* values;
    float* key_scale;
    float* value_scale;
    float* peak;
    int64_t slots;  // a multiple of 16
};

// Queries, keys and values of rows x new tokens, from the sums [rows * new, (H + 2 G) * D] of a linear: normalised,
// turned, quantised. Keys and values go into the store from `slot` on. queries [n, H, D] int16, query_scale [n, H] times
// the attention factor, value_peak [n, G]. norms: [H + G, D] or null. turns: [new, 2, P], cosines and sines of the
// positions. row: room for (H + 2 G) * D.
void NAME(heads)(int64_t rows, int64_t new_tokens, int64_t num_heads, int64_t kv_heads, int64_t dim,
                 const int32_t* sums, const float* scale_in, const float* weight_scale, const float* bias,
                 const float* norms, float eps, float inverse_dim, const float* cosines, const float* sines,
                 int64_t turned, int64_t query_max, float inverse_query_max, float attention_factor,
                 const struct Store* cache, int64_t slot, float* row, int16_t* queries, float* query_scale,
                 float* value_peak) {
    const int64_t size = (num_heads + 2 * kv_heads) * dim;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t t = 0; t < new_tokens; t++) {
            const int64_t n = r * new_tokens + t;
            for (int64_t i = 0; i < size; i += LANES) {
                vf y = product(sums + n * size + i, scale_in[n], weight_scale + i);
                store(row + i, bias ? y + load<vf>(bias + i) : y);
            }
            for (int64_t h = 0; h < num_heads + 2 * kv_heads; h++) {
                float* x = row + h * dim;
                const bool is_value = h >= num_heads + kv_heads;
                if (norms && !is_value) {
                    const float factor = norm_factor(x, dim, eps, inverse_dim);
                    for (int64_t i = 0; i < dim; i += LANES)
                        store(x + i, (load<vf>(x + i) * factor) * load<vf>(norms + h * dim + i));
                }
                if (!is_value)
                    for (int64_t i = 0; i < turned; i++) {
                        const float a = x[i], b = x[i + turned];
                        const float c = cosines[t * turned + i], s = sines[t * turned + i];
                        x[i] = a * c - b * s;
                        x[i + turned] = b * c + a * s;
                    }
                vi most = {};
                for (int64_t i = 0; i < dim; i += LANES) most = larger(most, magnitude(load<vf>(x + i)));
                const float peak = peak_of(most);
                const bool is_query = h < num_heads;
                const float factor = (is_query ? (float)query_max : 127.0f) / peak;
                const float scale = peak * (is_query ? inverse_query_max : 1.0f / 127.0f);
                if (is_query) {
                    int16_t* to = queries + (n * num_heads + h) * dim;
                    for (int64_t i = 0; i < dim; i += LANES)
                        store(to + i, __builtin_convertvector(to_int(rounded(load<vf>(x + i) * factor)), vh));
                    query_scale[n * num_heads + h] = scale * attention_factor;
                    continue;
                }
                const int64_t g = h - num_heads - (is_value ? kv_heads : 0), here = slot + t;
                const int64_t place = (r * kv_heads + g) * cache->slots + here;
                if (is_value) {
                    int8_t* to = cache->values + place * dim;
                    for (int64_t i = 0; i < dim; i += LANES)
                        store(to + i, __builtin_convertvector(to_int(rounded(load<vf>(x + i) * factor)), vb));
                    cache->value_scale[place] = scale;
                    float* most_scale = cache->peak + r * kv_heads + g;
                    if (scale > *most_scale) *most_scale = scale;
                    value_peak[n * kv_heads + g] = *most_scale;
                } else {
                    int8_t* to = cache->keys + ((r * kv_heads + g) * cache->slots + here / BLOCK_KEYS * BLOCK_KEYS) * dim;
                    to += here % BLOCK_KEYS * 2;
                    int8_t q[512];
                    for (int64_t i = 0; i < dim; i += LANES)
                        store(q + i, __builtin_convertvector(to_int(rounded(load<vf>(x + i) * factor)), vb));
                    for (int64_t i = 0; i < dim; i += 2) memcpy(to + i / 2 * 2 * BLOCK_KEYS, q + i, 2);
                    cache->key_scale[place] = scale;
                }
            }
        }
    }
}

}  // extern "C"

namespace {

const int TOGETHER = 4;            // queries that go over the keys and values together
const int64_t VALUE_KEYS = 2048;   // keys whose weighted sum of values is exact in float32 (numerics 5)

struct Query {
    const int16_t* q;
    float scale;
    float value_peak;
    int64_t first, last;  // slots that it sees
    float* out;
};

// out[d .. d + 16 W) of some queries, from their weights.
template <int W>
INLINE void mix_values(const Query* queries, const float* weights, int64_t stride, const int8_t* values, int64_t dim,
                       int64_t d, int64_t first, int64_t last, bool is_long) {
    vi total[TOGETHER][W] = {};
    vf sum[TOGETHER][W] = {};
    for (int64_t begin = first; begin <= last; begin += VALUE_KEYS) {
        for (int64_t s = begin; s <= last && s < begin + VALUE_KEYS; s++) {
            vf v[W];
            for (int w = 0; w < W; w++)
                v[w] = to_float(__builtin_convertvector(load<vb>(values + s * dim + d + w * LANES), vi));
            for (int j = 0; j < TOGETHER; j++) {
                const float p = weights[j * stride + s - first];
                for (int w = 0; w < W; w++) sum[j][w] = add_product(v[w], p, sum[j][w]);
            }
        }
        if (is_long)
            for (int j = 0; j < TOGETHER; j++)
                for (int w = 0; w < W; w++) {
                    total[j][w] += to_int(sum[j][w]);
                    sum[j][w] = vf{};
                }
    }
    for (int j = 0; j < TOGETHER; j++) {
        const float unit = queries[j].value_peak * 0x1p-17f;
        for (int w = 0; w < W; w++) {
            vf mixed = is_long ? to_float(total[j][w]) : sum[j][w];
            store(queries[j].out + d + w * LANES, mixed * unit);
        }
    }
}

// numerics 6.4 for some queries of one row and key/value head. z: room for TOGETHER * (slots + 32).
INLINE void attend(const Query* queries, const int8_t* keys, const int8_t* values, const float* key_scale,
                   const float* value_scale, int64_t slots, int64_t dim, const float* exp2, float* z) {
    int64_t first = queries[0].first, last = queries[0].last;
    for (int j = 1; j < TOGETHER; j++) {
        first = queries[j].first < first ? queries[j].first : first;
        last = queries[j].last > last ? queries[j].last : last;
    }
    first -= first % BLOCK_KEYS;
    const int64_t stride = slots + 2 * LANES;
    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const vf hidden = splat(-INFINITY);
    vf most[TOGETHER];
    for (int j = 0; j < TOGETHER; j++) most[j] = hidden;
    for (int64_t begin = first; begin <= last; begin += BLOCK_KEYS) {
        const int8_t* block = keys + begin * dim;
        vi sum[TOGETHER] = {};
        for (int64_t i = 0; i < dim / 2; i++) {
            const vs two = pairs(block + i * 2 * BLOCK_KEYS);
            for (int j = 0; j < TOGETHER; j++) {
                int32_t query;
                memcpy(&query, queries[j].q + 2 * i, 4);
                sum[j] = add_products(sum[j], two, query);
            }
        }
        const vf unit = load<vf>(key_scale + begin);
        for (int j = 0; j < TOGETHER; j++) {
            vf score = (to_float(sum[j]) * queries[j].scale) * unit;
            if (begin < queries[j].first || begin + BLOCK_KEYS - 1 > queries[j].last) {
                const vi slot = lane + (int32_t)begin;
                score = (slot < (int32_t)queries[j].first) | (slot > (int32_t)queries[j].last) ? hidden : score;
            }
            most[j] = larger(score, most[j]);
            store(z + j * stride + begin - first, score);
        }
    }
    for (int j = 0; j < TOGETHER; j++) {
        float* weights = z + j * stride;
        const float peak = peak_of(most[j]) + 0.5f;
        int64_t total = 0;
        vi part = {};
        for (int64_t i = 0; i <= last - first; i += LANES) {
            vf e = gather(exp2, to_int(smaller(peak - load<vf>(weights + i), (float)EXP2_LAST)));
            part += to_int(e);
            if ((i & 0x3fff) == 0x3ff0) {  // 2^20 each: not more than 1,024 of them
                total += sum_of(part);
                part = vi{};
            }
            store(weights + i, e);
        }
        total += sum_of(part);
        const float unit = 131072.0f / ((float)total * queries[j].value_peak);
        for (int64_t i = 0; i <= last - first; i += LANES)
            store(weights + i, rounded((load<vf>(weights + i) * load<vf>(value_scale + first + i)) * unit));
    }
    const bool is_long = last - first >= VALUE_KEYS;
    int64_t d = 0;
    for (; d + 64 <= dim; d += 64) mix_values<4>(queries, z, stride, values, dim, d, first, last, is_long);
    for (; d < dim; d += 16) mix_values<1>(queries, z, stride, values, dim, d, first, last, is_long);
}

}  // namespace

extern "C" {

// q[n, H * D], scale[n]: attention of rows x new tokens, quantised. The tokens lie in the store from `slot` on; each sees
// what is before it, and with a window only so many slots, itself included. row: room for 4 * H * D floats; z: room for
// 4 * (slots + 32).
void NAME(attention)(int64_t rows, int64_t new_tokens, int64_t num_heads, int64_t kv_heads, int64_t dim,
                     const int16_t* queries, const float* query_scale, const float* value_peak,
                     const struct Store* cache, int64_t slot, int64_t window, const float* exp2, float* row, float* z,
                     int8_t* q, float* scale) {
    const int64_t size = num_heads * dim, group = num_heads / kv_heads;
    // Some tokens together, so that TOGETHER queries share keys; their heads' outputs lie in `row` until all are there.
    const int64_t together = group >= TOGETHER ? 1 : TOGETHER / group;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < new_tokens; t += together) {
            const int64_t tokens = new_tokens - t < together ? new_tokens - t : together;
            for (int64_t g = 0; g < kv_heads; g++) {
                const int64_t place = (r * kv_heads + g) * cache->slots;
                for (int64_t begin = 0; begin < tokens * group; begin += TOGETHER) {
                    Query some[TOGETHER];
                    for (int j = 0; j < TOGETHER; j++) {
                        // Where there are fewer, the last one is computed again.
                        const int64_t which = begin + j < tokens * group ? begin + j : tokens * group - 1;
                        const int64_t token = which / group, head = g * group + which % group;
                        const int64_t n = r * new_tokens + t + token, here = slot + t + token;
                        some[j].q = queries + (n * num_heads + head) * dim;
                        some[j].scale = query_scale[n * num_heads + head];
                        some[j].value_peak = value_peak[n * kv_heads + g];
                        some[j].first = window && here + 1 > window ? here + 1 - window : 0;
                        some[j].last = here;
                        some[j].out = row + token * size + head * dim;
                    }
                    attend(some, cache->keys + place * dim, cache->values + place * dim, cache->key_scale + place,
                           cache->value_scale + place, cache->slots, dim, exp2, z);
                }
            }
            for (int64_t token = 0; token < tokens; token++) {
                const int64_t n = r * new_tokens + t + token;
                scale[n] = quantise(row + token * size, size, q + n * size);
            }
        }
}

}  // extern "C"

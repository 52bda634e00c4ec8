// Attention over integer keys and values (docs/numerics.md section 6.4). Included once for each LEVEL (kernels.h).

namespace {

const int AHEAD = 32;              // positions whose values are asked of the memory before they are needed
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
            __builtin_prefetch(values + (s + AHEAD) * dim + d);
            vf v[W];
            for (int w = 0; w < W; w++)
                v[w] = to_float(widened(values + s * dim + d + w * LANES));
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
    const int64_t stride = slots + 2 * BLOCK_KEYS;
    vi lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    const vf hidden = splat(-INFINITY);
    vf most[TOGETHER];
    for (int j = 0; j < TOGETHER; j++) most[j] = hidden;
    for (int64_t begin = first; begin <= last; begin += LANES) {
        const int8_t* block = keys + begin / BLOCK_KEYS * BLOCK_KEYS * dim + begin % BLOCK_KEYS * 2;
        for (int64_t i = 0; i < LANES; i++) __builtin_prefetch(block + 2 * BLOCK_KEYS * dim + i * dim);
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
            if (begin < queries[j].first || begin + LANES - 1 > queries[j].last) {
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
            if (i / LANES % 1024 == 1023) {  // 2^20 each: not more than so many of them
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
    const int wide = LEVEL >= 2 ? 4 : 2;  // with so many vectors for each query the registers are full
    int64_t d = 0;
    for (; d + wide * LANES <= dim; d += wide * LANES)
        mix_values<wide>(queries, z, stride, values, dim, d, first, last, is_long);
    for (; d < dim; d += LANES) mix_values<1>(queries, z, stride, values, dim, d, first, last, is_long);
}

// q[n, H * D], scale2: attention of rows x new tokens, quantised. Each token sees what is before it, and with a window
// only so many positions, itself included.
INLINE void attention(int64_t rows, int64_t new_tokens, const Model* m, int64_t window, const Store* cache,
                      const Room* room) {
    const int64_t num_heads = m->heads, kv_heads = m->kv_heads, dim = m->dim, slot = cache->slot;
    float* row = room->row;
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
                        some[j].q = room->queries + (n * num_heads + head) * dim;
                        some[j].scale = room->query_scale[n * num_heads + head];
                        some[j].value_peak = room->value_peak[n * kv_heads + g];
                        some[j].first = window && here + 1 > window ? here + 1 - window : 0;
                        some[j].last = here;
                        some[j].out = row + token * size + head * dim;
                    }
                    attend(some, cache->keys + place * dim, cache->values + place * dim, cache->key_scale + place,
                           cache->value_scale + place, cache->slots, dim, m->exp2_steps, room->z);
                }
            }
            for (int64_t token = 0; token < tokens; token++) {
                const int64_t n = r * new_tokens + t + token;
                room->scale2[n] = quantise(row + token * size, size, room->q + n * size);
            }
        }
}

}  // namespace

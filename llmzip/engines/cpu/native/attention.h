// Attention over integer keys and values (docs/numerics.md section 6.4). Included once for each LEVEL (kernels.h).

namespace {

const int AHEAD = 32;    // positions ahead whose values are prefetched
const int TOGETHER = 4;  // queries that read the keys together
const int VECTORS = LEVEL >= 2 ? 4 : 2;  // vectors of values at once: with two queries, their sums fill the registers

struct Query {
    const int16_t* q;
    float scale;
    float value_peak;
    int64_t first, last;  // the slots that it sees
    float* out;
};

// Weights of up to 2^18 as three planes of WEIGHT_BITS bits, [TOGETHER, 3, stride] bytes.
struct Planes {
    const uint8_t* bytes;
    int64_t stride;
    bool third;  // whether some weight needs the third plane
};

// Computes out[d .. d + LANES * W) of R queries: sums of weights times values are below 2^31 (numerics.md section 5).
template <int R, int W>
INLINE void mix_values(const Query* queries, const Planes* planes, int first_query, const int8_t* values, int64_t dim,
                       int64_t d, int64_t first, int64_t last) {
    const uint8_t* weights = planes->bytes + 3 * first_query * planes->stride;
    const int8_t* begin = values + first * dim + 4 * d;
    vi low[R][W] = {}, high[R][W] = {};
    for (int64_t s = 0; s <= last - first; s += 4) {
        vi v[W];
        for (int w = 0; w < W; w++) {
            v[w] = load<vi>(begin + s * dim + 4 * w * LANES);
            __builtin_prefetch(begin + (s + AHEAD) * dim + 4 * w * LANES);
        }
        for (int r = 0; r < R; r++) {
            int32_t lower, upper;
            memcpy(&lower, weights + 3 * r * planes->stride + s, 4);
            memcpy(&upper, weights + (3 * r + 1) * planes->stride + s, 4);
            for (int w = 0; w < W; w++) {
                low[r][w] = add_weighted(low[r][w], v[w], lower);
                high[r][w] = add_weighted(high[r][w], v[w], upper);
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int w = 0; w < W; w++) {
            vi highest = {};
            if (planes->third)
                for (int64_t s = 0; s <= last - first; s += 4) {
                    int32_t four;
                    memcpy(&four, weights + (3 * r + 2) * planes->stride + s, 4);
                    highest = add_weighted(highest, load<vi>(begin + s * dim + 4 * w * LANES), four);
                }
            const vi total = low[r][w] + (high[r][w] << WEIGHT_BITS) + (highest << 2 * WEIGHT_BITS);
            const float unit = queries[first_query + r].value_peak * 0x1p-17f;
            store(queries[first_query + r].out + d + w * LANES, to_float(total) * unit);
        }
}

// Computes attention (numerics.md section 6.4) of TOGETHER queries of one row and key/value head: scores, exponentials,
// integer weights, weighted values. These steps share the memory of room->z, so they are one function. place: of the
// row's and head's first slot.
INLINE void attend(const Query* queries, const Model* m, const Store* cache, int64_t place, const Room* room) {
    const int64_t slots = cache->slots, dim = m->dim;
    const int8_t *keys = cache->keys + place * dim, *values = cache->values + place * dim;
    const float *key_scale = cache->key_scale + place, *value_scale = cache->value_scale + place;
    float* z = room->z;
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
    vf maxima[TOGETHER];
    for (int j = 0; j < TOGETHER; j++) maxima[j] = hidden;
    for (int64_t begin = first; begin <= last; begin += LANES) {
        const int8_t* block = keys + begin / BLOCK_KEYS * BLOCK_KEYS * dim + begin % BLOCK_KEYS * 2;
        vi sum[TOGETHER] = {};
        for (int64_t i = 0; i < dim / 2; i += 2) {
            __builtin_prefetch(block + 2 * BLOCK_KEYS * (dim + i));  // two blocks ahead
            for (int64_t pair = i; pair < i + 2; pair++) {
                const vs two = pairs(block + pair * 2 * BLOCK_KEYS);
                for (int j = 0; j < TOGETHER; j++) {
                    int32_t query;
                    memcpy(&query, queries[j].q + 2 * pair, 4);
                    sum[j] = add_products(sum[j], two, query);
                }
            }
        }
        const vf unit = load<vf>(key_scale + begin);
        for (int j = 0; j < TOGETHER; j++) {
            vf score = (to_float(sum[j]) * queries[j].scale) * unit;
            if (m->attention_cap != 0.0f) score = soft_cap(m, score, m->attention_cap, m->attention_slope);
            if (begin < queries[j].first || begin + LANES - 1 > queries[j].last) {
                const vi slot = lane + (int32_t)begin;
                score = (slot < (int32_t)queries[j].first) | (slot > (int32_t)queries[j].last) ? hidden : score;
            }
            maxima[j] = larger(score, maxima[j]);
            store(z + j * stride + begin - first, score);
        }
    }
    int32_t any = 0;
    for (int j = 0; j < TOGETHER; j++) {
        float* weights = z + j * stride;
        const float peak = peak_of(maxima[j]) + 0.5f;
        int64_t total = 0;
        vi part = {};
        for (int64_t i = 0; i <= last - first; i += LANES) {
            const vi e = exp2_of(m, peak - load<vf>(weights + i));
            part += e;
            if (i / LANES % 1024 == 1023) {  // 2^20 each: the sum of 1024 is below 2^31
                total += sum_of(part);
                part = vi{};
            }
            store(weights + i, to_float(e));
        }
        total += sum_of(part);
        const float unit = 131072.0f / ((float)total * queries[j].value_peak);
        uint8_t* to = room->weights + 3 * j * stride;
        vi all = {};
        for (int64_t i = 0; i <= last - first; i += LANES) {
            const vf p = rounded((load<vf>(weights + i) * load<vf>(value_scale + first + i)) * unit);
            const vi whole = to_int(p);
            all |= whole;
            for (int plane = 0; plane < 3; plane++)
                store_narrow((int8_t*)to + plane * stride + i,
                             (whole >> (plane * WEIGHT_BITS)) & ((1 << WEIGHT_BITS) - 1));
        }
        for (int i = 0; i < LANES; i++) any |= all[i];
    }
    const Planes packed = {room->weights, stride, any >> (2 * WEIGHT_BITS) != 0};
    const int64_t step = VECTORS * LANES;
    int64_t d = 0;
    for (; d + step <= dim; d += step)
        for (int j = 0; j < TOGETHER; j += 2) mix_values<2, VECTORS>(queries, &packed, j, values, dim, d, first, last);
    for (; d < dim; d += LANES)
        for (int j = 0; j < TOGETHER; j += 2) mix_values<2, 1>(queries, &packed, j, values, dim, d, first, last);
}

// Computes attention of rows x new tokens, quantised for the product by `out`. Each token sees itself and earlier
// positions; with a window, that many positions at most.
INLINE void attention(int64_t rows, int64_t new_tokens, const Model* m, const Layer* layer, const Store* cache,
                      const Room* room) {
    const int64_t num_heads = m->heads, kv_heads = m->kv_heads, dim = m->dim, slot = cache->slot, window = layer->window;
    float* row = room->row;
    const int64_t size = num_heads * dim, group = num_heads / kv_heads;
    // Takes as many tokens at once as make whole groups of TOGETHER queries; `row` holds the outputs of their heads.
    const int64_t together = group % TOGETHER == 0 ? 1 : group % 2 == 0 ? TOGETHER / 2 : TOGETHER;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < new_tokens; t += together) {
            const int64_t tokens = new_tokens - t < together ? new_tokens - t : together;
            for (int64_t g = 0; g < kv_heads; g++) {
                const int64_t place = (r * kv_heads + g) * cache->slots;
                for (int64_t begin = 0; begin < tokens * group; begin += TOGETHER) {
                    Query queries[TOGETHER];
                    for (int j = 0; j < TOGETHER; j++) {
                        // If there are fewer, the last one is computed again.
                        const int64_t which = begin + j < tokens * group ? begin + j : tokens * group - 1;
                        const int64_t token = which / group, head = g * group + which % group;
                        const int64_t n = r * new_tokens + t + token, its_slot = slot + t + token;
                        queries[j].q = room->queries + (n * num_heads + head) * dim;
                        queries[j].scale = room->query_scale[n * num_heads + head];
                        queries[j].value_peak = room->value_peak[n * kv_heads + g];
                        queries[j].first = window && its_slot + 1 > window ? its_slot + 1 - window : 0;
                        queries[j].last = its_slot;
                        queries[j].out = row + token * size + head * dim;
                    }
                    attend(queries, m, cache, place, room);
                }
            }
            for (int64_t token = 0; token < tokens; token++)
                quantise(row + token * size, size, m, &layer->out, r * new_tokens + t + token, room);
        }
}

}  // namespace

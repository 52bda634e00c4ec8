// Attention over integer keys and values (docs/numerics.md section 6.4). Included once for each LEVEL (kernels.h).

namespace {

const int TOGETHER = 4;  // queries that read the keys together
const int VECTORS = LEVEL >= 2 ? 4 : 2;  // vectors of values that are mixed at once, as their sums fit the registers

struct Query {
    const int16_t* q;
    float scale;
    float value_peak;
    int32_t offset;  // what adding 128 to keys adds to products with the high bytes
    int64_t first, last;  // the slots that it sees
    float* out;
};

// Keys and values of a row and head; and those whose turn is next, or null. A step of many rows reads all keys and
// values from memory: so each row prefetches those of the next one, spread over its scores and exponentials.
struct Context {
    const int8_t *keys, *values;
    const float *key_scale, *value_scale;
    const int8_t *next_keys, *next_values;
    const float *next_key_scale, *next_value_scale;
};

// Weights of up to 2^18 as three planes of WEIGHT_BITS bits, [TOGETHER, 3, stride] bytes. Few weights need more than
// the first: lists say which groups of four positions do.
struct Planes {
    uint8_t* bytes;
    int32_t* lists;  // [TOGETHER, stride]: groups of the second plane, then of the third
    int64_t stride;

    uint8_t* plane(int query, int number) const { return bytes + (3 * query + number) * stride; }
    int32_t* list(int query, int number) const { return lists + query * stride + (number - 1) * (stride / 2); }
};

// Returns where the first bytes of a key are.
template <class T> INLINE T* key_at(T* keys, int64_t slot, int64_t dim) {
    return keys + slot / BLOCK_KEYS * BLOCK_KEYS * dim + slot % BLOCK_KEYS * KEY_BYTES;
}

#if LEVEL >= 2

// Computes the products of J queries with B blocks of keys: of the high bytes of the queries, which are signed, with
// keys to which 128 is added; of the low bytes, which are not, with the keys.
template <int J, int B>
INLINE void score_sums(const Query* queries, const int8_t* block, int64_t dim, vi (*sums)[J]) {
    vi high[B][J], low[B][J];
    for (int j = 0; j < J; j++)
        for (int b = 0; b < B; b++) {
            high[b][j] = splat(-queries[j].offset);
            low[b][j] = vi{};
        }
    for (int64_t i = 0; i < dim; i += 4) {
        vi keys[B], shifted[B];
        for (int b = 0; b < B; b++) {
            keys[b] = load<vi>(block + (b * dim + i) * BLOCK_KEYS);
            shifted[b] = keys[b] ^ (int32_t)0x80808080;
        }
        for (int j = 0; j < J; j++) {
            int32_t upper, lower;
            memcpy(&upper, (const int8_t*)queries[j].q + i, 4);
            memcpy(&lower, (const int8_t*)queries[j].q + dim + i, 4);
            for (int b = 0; b < B; b++) {
                high[b][j] = add_signed(high[b][j], shifted[b], upper);
                low[b][j] = add_weighted(low[b][j], keys[b], lower);
            }
        }
    }
    for (int j = 0; j < J; j++)
        for (int b = 0; b < B; b++) sums[b][j] = (high[b][j] << 8) + low[b][j];
}

INLINE int32_t offset_of(const int16_t* q, int64_t dim) {
    vi sum = {};
    for (int64_t i = 0; i < dim; i += LANES) sum += widened((const int8_t*)q + i);
    return 128 * (int32_t)sum_of(sum);
}

#else

INLINE int32_t offset_of(const int16_t*, int64_t) { return 0; }

// Computes the products of J queries with LANES keys.
template <int J, int B>
INLINE void score_sums(const Query* queries, const int8_t* block, int64_t dim, vi (*sums)[J]) {
    static_assert(B == 1);
    vi sum[J];
    for (int j = 0; j < J; j++) sum[j] = vi{};
    for (int64_t pair = 0; pair < dim / 2; pair++) {
        const vs two = pairs(block + pair * 2 * BLOCK_KEYS);
        for (int j = 0; j < J; j++) {
            int32_t query;
            memcpy(&query, queries[j].q + 2 * pair, 4);
            sum[j] = add_products(sum[j], two, query);
        }
    }
    for (int j = 0; j < J; j++) sums[0][j] = sum[j];
}

#endif

// Computes the scores z[J, stride] of B vectors of slots from `begin` on, and raises the maxima. Slots that a query
// does not see get minus infinity.
template <int J, int B>
INLINE void score(const Query* queries, const Model* m, const Octave& octave, const Context* context, int64_t begin,
                  float* z, int64_t stride, vf* maxima) {
    const int64_t dim = m->dim;
    const vf hidden = splat(-INFINITY);
    vi sums[B][J];
    score_sums<J, B>(queries, key_at(context->keys, begin, dim), dim, sums);
    vi lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    for (int b = 0; b < B; b++) {
        const int64_t from = begin + b * LANES;
        if (context->next_keys) {
            fetch(context->next_keys + from * dim, LANES * dim);
            __builtin_prefetch(context->next_key_scale + from, 0, 2);
            __builtin_prefetch(context->next_value_scale + from, 0, 2);
        }
        const vf unit = load<vf>(context->key_scale + from);
        for (int j = 0; j < J; j++) {
            vf score = (to_float(sums[b][j]) * queries[j].scale) * unit;
            if (m->attention_cap != 0.0f) score = soft_cap(octave, score, m->attention_cap, m->attention_slope);
            if (from < queries[j].first || from + LANES - 1 > queries[j].last) {
                const vi slot = lane + (int32_t)from;
                score = (slot < (int32_t)queries[j].first) | (slot > (int32_t)queries[j].last) ? hidden : score;
            }
            maxima[j] = larger(score, maxima[j]);
            store(z + j * stride + b * LANES, score);
        }
    }
}

// Turns `count` scores into exponentials. Returns their sum. next: what to prefetch, `size` bytes for each, or null.
INLINE int64_t exponentials_of(const Octave& octave, float peak, int64_t count, float* z, const int8_t* next,
                               int64_t size) {
    int64_t total = 0;
    peak = peak + 0.5f;
    for (int64_t begin = 0; begin < count; begin += 1024 * LANES) {  // 2^20 each: the sum of 1024 is below 2^31
        vi part = {};
        for (int64_t i = begin; i < count && i < begin + 1024 * LANES; i += LANES) {
            const vi e = exp2_of(octave, peak - load<vf>(z + i));
            part += e;
            store(z + i, to_float(e));
            if (next) fetch(next + i * size, LANES * size);
        }
        total += sum_of(part);
    }
    return total;
}

INLINE vi weights_of(const float* exponentials, const float* value_scale, float unit) {
    return nearest((load<vf>(exponentials) * load<vf>(value_scale)) * unit);
}

struct Listed {
    int64_t count[3];  // of the groups in the list of each plane but the first
};

// Turns `count` exponentials into weights, in planes, and lists the groups that need more than the first plane. The
// lists take the memory of the exponentials. next, size: as in `exponentials_of`.
INLINE Listed weigh(const float* exponentials, const float* value_scale, float unit, int64_t count,
                    const Planes* planes, int query, const int8_t* next, int64_t size) {
    uint8_t *first = planes->plane(query, 0), *second = planes->plane(query, 1);
    vi all = {};
    for (int64_t i = 0; i < count; i += 2 * LANES) {
        const vi a = weights_of(exponentials + i, value_scale + i, unit);
        const vi b = i + LANES < count ? weights_of(exponentials + i + LANES, value_scale + i + LANES, unit) : vi{};
        all |= a | b;
        store_planes(first + i, second + i, a, b);
        if (next) fetch(next + i * size, 2 * LANES * size);
    }
    const bool third = or_of(all) >> (2 * WEIGHT_BITS) != 0;
    if (third)
        for (int64_t i = 0; i < count; i += LANES)
            store_narrow((int8_t*)planes->plane(query, 2) + i,
                         weights_of(exponentials + i, value_scale + i, unit) >> (2 * WEIGHT_BITS));
    Listed listed = {};
    for (int number = 1; number < (third ? 3 : 2); number++)
        listed.count[number] = list_nonzero(planes->plane(query, number), count / 4, planes->list(query, number));
    return listed;
}

// Computes the sums [J][W] of first planes times W vectors of values, which begin at the first weight's.
template <int J, int W>
INLINE void mix_values(const Planes* planes, const int8_t* values, int64_t dim, int64_t count, vi (*sums)[W]) {
    vi sum[J][W];
    for (int j = 0; j < J; j++)
        for (int w = 0; w < W; w++) sum[j][w] = vi{};
    for (int64_t s = 0; s < count; s += 4) {
        vi v[W];
        for (int w = 0; w < W; w++) v[w] = load<vi>(values + s * dim + 4 * w * LANES);
        for (int j = 0; j < J; j++) {
            int32_t four;
            memcpy(&four, planes->plane(j, 0) + s, 4);
            for (int w = 0; w < W; w++) sum[j][w] = add_weighted(sum[j][w], v[w], four);
        }
    }
    for (int j = 0; j < J; j++)
        for (int w = 0; w < W; w++) sums[j][w] = sum[j][w];
}

// Adds to the sums of a query those of a further plane, of the groups that are listed.
template <int W>
INLINE void mix_listed(const Planes* planes, int query, int number, int64_t listed, const int8_t* values, int64_t dim,
                       vi* sums) {
    const int32_t* list = planes->list(query, number);
    const uint8_t* weights = planes->plane(query, number);
    vi sum[W];
    for (int w = 0; w < W; w++) sum[w] = vi{};
    for (int64_t i = 0; i < listed; i++) {
        const int64_t s = 4 * list[i];
        int32_t four;
        memcpy(&four, weights + s, 4);
        for (int w = 0; w < W; w++) sum[w] = add_weighted(sum[w], load<vi>(values + s * dim + 4 * w * LANES), four);
    }
    for (int w = 0; w < W; w++) sums[w] += sum[w] << (number * WEIGHT_BITS);
}

// Computes out[d .. d + LANES * W) of J queries: sums of weights times values are below 2^31 (numerics.md section 5).
template <int J, int W>
INLINE void mix(const Query* queries, const Planes* planes, const Listed* listed, const Context* context, int64_t dim,
                int64_t d, int64_t first, int64_t count) {
    const int8_t* values = context->values + first * dim + 4 * d;
    vi sums[J][W];
    mix_values<J, W>(planes, values, dim, count, sums);
    for (int j = 0; j < J; j++) {
        for (int number = 1; number < 3; number++)
            if (listed[j].count[number])
                mix_listed<W>(planes, j, number, listed[j].count[number], values, dim, sums[j]);
        const float unit = queries[j].value_peak * 0x1p-17f;
        for (int w = 0; w < W; w++) store(queries[j].out + d + w * LANES, to_float(sums[j][w]) * unit);
    }
}

// Computes attention (numerics.md section 6.4) of J queries of one row and key/value head: scores, exponentials,
// integer weights, weighted values.
template <int J>
APART void attend(const Query* queries, const Model* m, const Octave* octave, const Context* context, int64_t slots,
                  const Room* room) {
    const int64_t dim = m->dim, stride = slots + 2 * BLOCK_KEYS, step = VECTORS * LANES;
    int64_t first = queries[0].first, last = queries[0].last;
    for (int j = 1; j < J; j++) {
        first = queries[j].first < first ? queries[j].first : first;
        last = queries[j].last > last ? queries[j].last : last;
    }
    first -= first % BLOCK_KEYS;
    const int64_t count = last / LANES * LANES + LANES - first;
    vf maxima[J];
    for (int j = 0; j < J; j++) maxima[j] = splat(-INFINITY);
    int64_t i = 0;
    for (; i + BLOCKS * LANES <= count; i += BLOCKS * LANES)
        score<J, BLOCKS>(queries, m, *octave, context, first + i, room->z + i, stride, maxima);
    for (; i < count; i += LANES) score<J, 1>(queries, m, *octave, context, first + i, room->z + i, stride, maxima);
    const Planes planes = {room->weights, (int32_t*)room->z, stride};
    // Exponentials and weights of each query prefetch their shares of the values.
    const int64_t share = dim / (2 * J);
    const int8_t* next = context->next_values ? context->next_values + first * dim : nullptr;
    float units[J];
    for (int j = 0; j < J; j++, next = next ? next + share * count : next) {
        const int64_t total = exponentials_of(*octave, peak_of(maxima[j]), count, room->z + j * stride, next, share);
        units[j] = 131072.0f / ((float)total * queries[j].value_peak);
    }
    Listed listed[J];
    for (int j = 0; j < J; j++, next = next ? next + share * count : next)
        listed[j] = weigh(room->z + j * stride, context->value_scale + first, units[j], count, &planes, j, next, share);
    int64_t d = 0;
    for (; d + step <= dim; d += step) mix<J, VECTORS>(queries, &planes, listed, context, dim, d, first, count);
    for (; d < dim; d += LANES) mix<J, 1>(queries, &planes, listed, context, dim, d, first, count);
}

// Computes attention of up to TOGETHER queries.
INLINE void attend_some(int64_t number, const Query* queries, const Model* m, const Octave* octave,
                        const Context* context, int64_t slots, const Room* room) {
    if (number == 4)
        attend<4>(queries, m, octave, context, slots, room);
    else if (number == 3)
        attend<3>(queries, m, octave, context, slots, room);
    else if (number == 2)
        attend<2>(queries, m, octave, context, slots, room);
    else
        attend<1>(queries, m, octave, context, slots, room);
}

// Describes the keys and values of a row and head; next: those after them, or of the next layer, or null.
INLINE Context context_of(const Store* cache, int64_t line, int64_t dim, const Store* next, int64_t next_line) {
    const int64_t place = line * cache->slots, next_place = next ? next_line * next->slots : 0;
    return {
        cache->keys + place * dim, cache->values + place * dim, cache->key_scale + place, cache->value_scale + place,
        next ? next->keys + next_place * dim : nullptr, next ? next->values + next_place * dim : nullptr,
        next ? next->key_scale + next_place : nullptr, next ? next->value_scale + next_place : nullptr,
    };
}

// Computes attention of rows x new tokens, quantised for the product by `out`. Each token sees itself and earlier
// positions; with a window, that many positions at most. after: the store of the next layer, or null.
APART void attention(int64_t rows, int64_t new_tokens, const Model* m, const Layer* layer, const Store* cache,
                      const Store* after, const Room* room) {
    const int64_t num_heads = m->heads, kv_heads = m->kv_heads, dim = m->dim, window = layer->window;
    const Octave octave = octave_of(m);
    float* row = room->row;
    const int64_t size = num_heads * dim, group = num_heads / kv_heads;
    // Takes as many tokens at once as make whole groups of TOGETHER queries; `row` holds the outputs of their heads.
    const int64_t together = group % TOGETHER == 0 ? 1 : group % 2 == 0 ? TOGETHER / 2 : TOGETHER;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < new_tokens; t += together) {
            const int64_t tokens = new_tokens - t < together ? new_tokens - t : together;
            for (int64_t g = 0; g < kv_heads; g++) {
                const int64_t line = r * kv_heads + g;
                const bool is_last = line + 1 == rows * kv_heads;
                const Store* next = t + tokens < new_tokens ? nullptr : is_last ? after : cache;
                const Context context = context_of(cache, line, dim, next, is_last ? 0 : line + 1);
                for (int64_t begin = 0; begin < tokens * group; begin += TOGETHER) {
                    const int64_t number = tokens * group - begin < TOGETHER ? tokens * group - begin : TOGETHER;
                    Query queries[TOGETHER];
                    for (int64_t j = 0; j < number; j++) {
                        const int64_t which = begin + j, token = which / group, head = g * group + which % group;
                        const int64_t n = r * new_tokens + t + token, slot = cache->slot + t + token;
                        queries[j].q = room->queries + (n * num_heads + head) * dim;
                        queries[j].offset = offset_of(queries[j].q, dim);
                        queries[j].scale = room->query_scale[n * num_heads + head];
                        queries[j].value_peak = room->value_peak[n * kv_heads + g];
                        queries[j].first = window && slot + 1 > window ? slot + 1 - window : 0;
                        queries[j].last = slot;
                        queries[j].out = row + token * size + head * dim;
                    }
                    attend_some(number, queries, m, &octave, &context, cache->slots, room);
                }
            }
            for (int64_t token = 0; token < tokens; token++)
                quantise(row + token * size, size, m, &layer->out, r * new_tokens + t + token, room);
        }
}

}  // namespace

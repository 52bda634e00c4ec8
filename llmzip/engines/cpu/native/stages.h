// The stages of a layer between its products (docs/numerics.md section 6). kernels.h includes this file once for each
// LEVEL.

namespace {

// Returns the sum of squares of round(x * factor), |round| <= 2047, `size` a multiple of 16 and at most 2^17.
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

// Returns the largest magnitude of a row, at least TINY.
INLINE float row_peak(const float* x, int64_t size) {
    vi maxima = {};
    for (int64_t i = 0; i < size; i += LANES) maxima = larger(maxima, magnitude(load<vf>(x + i)));
    return peak_of(maxima);
}

// Returns the factor 1 / r of a row (numerics.md section 6.2).
INLINE float norm_factor(const float* x, int64_t size, float eps, float inverse_size) {
    const float peak = row_peak(x, size), unit = peak * (1.0f / 2047.0f);
    const float mean = (squares(x, size, 2047.0f / peak) * inverse_size) * (unit * unit);
    return 1.0f / (float)std::sqrt((double)(mean + eps));
}

// Computes Quantise(x, 127) into q (numerics.md section 2); returns the scale.
INLINE float quantise(const float* x, int64_t size, int8_t* q) {
    const float peak = row_peak(x, size), factor = 127.0f / peak;
    for (int64_t i = 0; i < size; i += LANES)
        store_narrow(q + i, to_int(rounded(load<vf>(x + i) * factor)));
    return peak * (1.0f / 127.0f);
}

// Computes the norm of a row, quantised, into q and scale; `row`: room for the row.
INLINE void norm_quantise(const float* x, int64_t size, const float* weight, float eps, float inverse_size, float* row,
                          int8_t* q, float* scale) {
    const float factor = norm_factor(x, size, eps, inverse_size);
    for (int64_t i = 0; i < size; i += LANES) store(row + i, (load<vf>(x + i) * factor) * load<vf>(weight + i));
    *scale = quantise(row, size, q);
}

// Returns LANES outputs of a product with their scales.
INLINE vf product(const int32_t* sums, float scale, const float* weight_scale) {
    return (to_float(load<vi>(sums)) * scale) * load<vf>(weight_scale);
}

// Looks up the embedding rows of ids, times gain, into x[n, K].
INLINE void embed(int64_t n, const Model* m, const int64_t* ids, float* x) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < m->hidden; i += LANES) {
            vi q = widened(m->embedding + ids[t] * m->hidden + i);
            vf y = to_float(q) * m->embedding_scale[ids[t]];
            store(x + t * m->hidden + i, m->gain == 1.0f ? y : y * m->gain);
        }
}

// Computes the norm of x, quantised, into q and scale.
INLINE void norm(int64_t n, const Model* m, const float* weight, const Room* room) {
    for (int64_t t = 0; t < n; t++)
        norm_quantise(room->x + t * m->hidden, m->hidden, weight, m->eps, m->inverse_hidden, room->row,
                      room->q + t * m->hidden, room->scale + t);
}

// Adds to x a product whose rows had the scales `scale_in`; then computes the norm of x, quantised, into q and scale,
// unless weight is null.
INLINE void add_norm(int64_t n, const Model* m, const float* weight_scale, const float* scale_in, const float* weight,
                     const Room* room) {
    const int64_t size = m->hidden;
    for (int64_t t = 0; t < n; t++) {
        float* x = room->x + t * size;
        for (int64_t i = 0; i < size; i += LANES)
            store(x + i, load<vf>(x + i) + product(room->sums + t * size + i, scale_in[t], weight_scale + i));
        if (weight)
            norm_quantise(x, size, weight, m->eps, m->inverse_hidden, room->row, room->q + t * size, room->scale + t);
    }
}

// Computes silu(gate) * up, quantised, into q[n, M] and scale2, from the sums [n, 2 M] of rows with `scale`.
INLINE void gate(int64_t n, const Model* m, const float* weight_scale, const Room* room) {
    const int64_t size = m->mlp;
    for (int64_t t = 0; t < n; t++) {
        const int32_t* sums = room->sums + t * 2 * size;
        const float scale = room->scale[t];
        for (int64_t i = 0; i < size; i += LANES) {
            vf g = product(sums + i, scale, weight_scale + i);
            vf up = product(sums + size + i, scale, weight_scale + size + i);
            vf steps = (vf)magnitude(g) * m->log2e;
            vf e = gather(m->exp2_unit, to_int(smaller(steps + 0.5f, (float)EXP2_LAST)));
            vf u = g < 0.0f ? g * e : g;
            store(room->row + i, (u / (e + 1.0f)) * up);
        }
        room->scale2[t] = quantise(room->row, size, room->q + t * size);
    }
}

// Computes masses out[n, V] from the sums of the head (numerics.md section 6.7).
INLINE void head_masses(int64_t n, const Model* m, const Room* room, int32_t* out) {
    const int64_t size = m->vocab, whole = size - size % LANES, stride = (size + PACKED - 1) / PACKED * PACKED;
    const float* weight_scale = m->head.scale;
    float* row = room->row;
    for (int64_t t = 0; t < n; t++) {
        const int32_t* sums = room->sums + t * stride;
        int32_t* to = out + t * size;
        const float scale = room->scale[t] * m->log2e;
        float maximum = ((float)sums[0] * scale) * weight_scale[0];
        vf maxima = splat(maximum);
        for (int64_t i = 0; i < whole; i += LANES) {
            vf z = product(sums + i, scale, weight_scale + i);
            store(row + i, z);
            maxima = larger(z, maxima);
        }
        maximum = peak_of(maxima);
        for (int64_t i = whole; i < size; i++) {
            row[i] = ((float)sums[i] * scale) * weight_scale[i];
            maximum = row[i] > maximum ? row[i] : maximum;
        }
        const float peak = maximum + 0.5f;
        for (int64_t i = 0; i < whole; i += LANES)
            store(to + i, gather(m->exp2, to_int(smaller(peak - load<vf>(row + i), (float)m->exp2_last))));
        for (int64_t i = whole; i < size; i++) {
            const float steps = peak - row[i];
            to[i] = m->exp2[steps < (float)m->exp2_last ? (int)steps : m->exp2_last];
        }
    }
}

// Rotates the pairs (i, i + turned) of a head.
INLINE void rotate(float* x, const float* cosines, const float* sines, int64_t turned) {
    for (int64_t i = 0; i < turned; i++) {
        const float a = x[i], b = x[i + turned], c = cosines[i], s = sines[i];
        x[i] = a * c - b * s;
        x[i + turned] = b * c + a * s;
    }
}

// Quantises a head to integers of type T: round(x * factor).
template <class T> INLINE void quantise_head(const float* x, int64_t dim, float factor, T* q) {
    for (int64_t i = 0; i < dim; i += LANES) store_narrow(q + i, to_int(rounded(load<vf>(x + i) * factor)));
}

// Stores a quantised key in its slot of the block that it belongs to. keys: those of one row and head.
INLINE void store_key(int8_t* keys, int64_t slot, int64_t dim, const int8_t* q) {
    int8_t* to = keys + slot / BLOCK_KEYS * BLOCK_KEYS * dim + slot % BLOCK_KEYS * 2;
    for (int64_t i = 0; i < dim; i += 2) memcpy(to + i * BLOCK_KEYS, q + i, 2);
}

// Stores a quantised value in its slot among four. values: those of one row and head.
INLINE void store_value(int8_t* values, int64_t slot, int64_t dim, const int8_t* q) {
    int8_t* to = values + (slot - slot % 4) * dim + slot % 4;
    for (int64_t i = 0; i < dim; i++) to[4 * i] = q[i];
}

// Computes queries, keys and values of rows x new tokens from the sums [n, (H + 2 G) * D]: normalised, rotated,
// quantised. Keys and values go into the store.
INLINE void heads(int64_t rows, int64_t new_tokens, const Model* m, const Layer* layer, const float* cosines,
                  const float* sines, int64_t turned, const Store* cache, const Room* room) {
    const int64_t num_heads = m->heads, kv_heads = m->kv_heads, dim = m->dim;
    const float* bias = layer->qkv_bias;
    float* row = room->row;
    const int64_t size = (num_heads + 2 * kv_heads) * dim;
    for (int64_t n = 0; n < rows * new_tokens; n++) {
        const int64_t r = n / new_tokens, t = n % new_tokens, slot = cache->slot + t;
        for (int64_t i = 0; i < size; i += LANES) {
            vf y = product(room->sums + n * size + i, room->scale[n], layer->qkv.scale + i);
            store(row + i, bias ? y + load<vf>(bias + i) : y);
        }
        for (int64_t h = 0; h < num_heads + 2 * kv_heads; h++) {
            float* x = row + h * dim;
            const bool is_query = h < num_heads, is_value = h >= num_heads + kv_heads;
            if (layer->qk_norm && !is_value) {
                const float factor = norm_factor(x, dim, m->eps, m->inverse_dim);
                for (int64_t i = 0; i < dim; i += LANES)
                    store(x + i, (load<vf>(x + i) * factor) * load<vf>(layer->qk_norm + h * dim + i));
            }
            if (!is_value) rotate(x, cosines + t * turned, sines + t * turned, turned);
            const float peak = row_peak(x, dim);
            const float factor = (is_query ? (float)m->query_max : 127.0f) / peak;
            const float scale = peak * (is_query ? m->inverse_query_max : 1.0f / 127.0f);
            if (is_query) {
                quantise_head(x, dim, factor, room->queries + (n * num_heads + h) * dim);
                room->query_scale[n * num_heads + h] = scale * m->attention_factor;
                continue;
            }
            int8_t q[512];
            quantise_head(x, dim, factor, q);
            const int64_t g = h - num_heads - (is_value ? kv_heads : 0), line = r * kv_heads + g;
            const int64_t first = line * cache->slots;
            if (is_value) {
                store_value(cache->values + first * dim, slot, dim, q);
                cache->value_scale[first + slot] = scale;
                if (scale > cache->peak[line]) cache->peak[line] = scale;
                room->value_peak[n * kv_heads + g] = cache->peak[line];
            } else {
                store_key(cache->keys + first * dim, slot, dim, q);
                cache->key_scale[first + slot] = scale;
            }
        }
    }
}

}  // namespace

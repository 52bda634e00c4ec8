// The stretches of a layer between its products (docs/numerics.md section 6). Included once for each LEVEL (kernels.h).

namespace {

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
        store_narrow(q + i, to_int(rounded(load<vf>(x + i) * factor)));
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

// x[n, K] = embedding rows of ids, times gain.
INLINE void embed(int64_t n, const Model* m, const int64_t* ids, float* x) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < m->hidden; i += LANES) {
            vi q = widened(m->embedding + ids[t] * m->hidden + i);
            vf y = to_float(q) * m->embedding_scale[ids[t]];
            store(x + t * m->hidden + i, m->gain == 1.0f ? y : y * m->gain);
        }
}

// q, scale: the norm of x, quantised.
INLINE void norm(int64_t n, const Model* m, const float* weight, const Room* room) {
    for (int64_t t = 0; t < n; t++)
        norm_quantise(room->x + t * m->hidden, m->hidden, weight, m->eps, m->inverse_hidden, room->row,
                      room->q + t * m->hidden, room->scale + t);
}

// x += what a product gave, whose rows had `scale_in`; then q, scale: its norm, unless weight is null.
INLINE void add_norm(int64_t n, const Model* m, const float* weight_scale, const float* scale_in, const float* weight,
                     const Room* room) {
    const int64_t size = m->hidden;
    for (int64_t t = 0; t < n; t++) {
        float* here = room->x + t * size;
        for (int64_t i = 0; i < size; i += LANES)
            store(here + i, load<vf>(here + i) + product(room->sums + t * size + i, scale_in[t], weight_scale + i));
        if (weight)
            norm_quantise(here, size, weight, m->eps, m->inverse_hidden, room->row, room->q + t * size, room->scale + t);
    }
}

// q[n, M], scale2: silu(gate) * up, quantised, from the sums [n, 2 M] of rows with `scale`.
INLINE void gate(int64_t n, const Model* m, const float* weight_scale, const Room* room) {
    const int64_t size = m->mlp;
    for (int64_t t = 0; t < n; t++) {
        const int32_t* here = room->sums + t * 2 * size;
        const float scale = room->scale[t];
        for (int64_t i = 0; i < size; i += LANES) {
            vf g = product(here + i, scale, weight_scale + i);
            vf up = product(here + size + i, scale, weight_scale + size + i);
            vf steps = (vf)magnitude(g) * m->log2e;
            vf e = gather(m->exp2_unit, to_int(smaller(steps + 0.5f, (float)EXP2_LAST)));
            vf u = g < 0.0f ? g * e : g;
            store(room->row + i, (u / (e + 1.0f)) * up);
        }
        room->scale2[t] = quantise(room->row, size, room->q + t * size);
    }
}

// out[n, V]: masses from the sums of the head (numerics 6.7).
INLINE void head_masses(int64_t n, const Model* m, const Room* room, int32_t* out) {
    const int64_t size = m->vocab, whole = size - size % LANES, stride = (size + PACKED - 1) / PACKED * PACKED;
    const float* weight_scale = m->head.scale;
    float* row = room->row;
    for (int64_t t = 0; t < n; t++) {
        const int32_t* here = room->sums + t * stride;
        int32_t* to = out + t * size;
        const float scale = room->scale[t] * m->log2e;
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
            store(to + i, gather(m->exp2, to_int(smaller(peak - load<vf>(row + i), (float)EXP2_LAST))));
        for (int64_t i = whole; i < size; i++) {
            const float steps = peak - row[i];
            to[i] = m->exp2[steps < (float)EXP2_LAST ? (int)steps : EXP2_LAST];
        }
    }
}

// Queries, keys and values of rows x new tokens, from the sums [n, (H + 2 G) * D]: normalised, turned, quantised. Keys
// and values go into the store.
INLINE void heads(int64_t rows, int64_t new_tokens, const Model* m, const Layer* layer, const float* cosines,
                  const float* sines, int64_t turned, const Store* cache, const Room* room) {
    const int64_t num_heads = m->heads, kv_heads = m->kv_heads, dim = m->dim, slot = cache->slot;
    const float* bias = layer->qkv_bias;
    float* row = room->row;
    const int64_t size = (num_heads + 2 * kv_heads) * dim;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t t = 0; t < new_tokens; t++) {
            const int64_t n = r * new_tokens + t;
            for (int64_t i = 0; i < size; i += LANES) {
                vf y = product(room->sums + n * size + i, room->scale[n], layer->qkv.scale + i);
                store(row + i, bias ? y + load<vf>(bias + i) : y);
            }
            for (int64_t h = 0; h < num_heads + 2 * kv_heads; h++) {
                float* x = row + h * dim;
                const bool is_value = h >= num_heads + kv_heads;
                if (layer->qk_norm && !is_value) {
                    const float factor = norm_factor(x, dim, m->eps, m->inverse_dim);
                    for (int64_t i = 0; i < dim; i += LANES)
                        store(x + i, (load<vf>(x + i) * factor) * load<vf>(layer->qk_norm + h * dim + i));
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
                const float factor = (is_query ? (float)m->query_max : 127.0f) / peak;
                const float scale = peak * (is_query ? m->inverse_query_max : 1.0f / 127.0f);
                if (is_query) {
                    int16_t* to = room->queries + (n * num_heads + h) * dim;
                    for (int64_t i = 0; i < dim; i += LANES)
                        store_narrow(to + i, to_int(rounded(load<vf>(x + i) * factor)));
                    room->query_scale[n * num_heads + h] = scale * m->attention_factor;
                    continue;
                }
                int8_t q[512];
                const int64_t g = h - num_heads - (is_value ? kv_heads : 0), here = slot + t;
                const int64_t place = (r * kv_heads + g) * cache->slots + here;
                if (is_value) {
                    int8_t* to = cache->values + (place - here % 4) * dim + here % 4;
                    for (int64_t i = 0; i < dim; i += LANES)
                        store_narrow(q + i, to_int(rounded(load<vf>(x + i) * factor)));
                    for (int64_t i = 0; i < dim; i++) to[4 * i] = q[i];
                    cache->value_scale[place] = scale;
                    float* most_scale = cache->peak + r * kv_heads + g;
                    if (scale > *most_scale) *most_scale = scale;
                    room->value_peak[n * kv_heads + g] = *most_scale;
                } else {
                    int8_t* to = cache->keys + ((r * kv_heads + g) * cache->slots + here / BLOCK_KEYS * BLOCK_KEYS) * dim;
                    to += here % BLOCK_KEYS * 2;
                    for (int64_t i = 0; i < dim; i += LANES)
                        store_narrow(q + i, to_int(rounded(load<vf>(x + i) * factor)));
                    for (int64_t i = 0; i < dim; i += 2) memcpy(to + i / 2 * 2 * BLOCK_KEYS, q + i, 2);
                    cache->key_scale[place] = scale;
                }
            }
        }
    }
}

}  // namespace

// The stages of a layer between its products, for n rows (docs/numerics.md section 6). kernels.h includes this file once
// for each LEVEL.

namespace {

// Returns LANES values of a row of int8 weights from i on, times its scale; 0 beyond `size`.
INLINE vf looked_up(const int8_t* row, int64_t i, int64_t size, float scale) {
    if (i + LANES <= size) return to_float(widened(row + i)) * scale;
    int8_t last[LANES] = {};
    memcpy(last, row + i, size - i);
    return to_float(widened(last)) * scale;
}

// Looks up the embedding rows of rows x new tokens, with gain and the rows of positions from `begin` on, into x.
INLINE void embed(int64_t n, int64_t new_tokens, const Model* m, const int64_t* ids, int64_t begin, float* x) {
    const int64_t size = m->hidden;
    for (int64_t t = 0; t < n; t++, x += m->width)
        for (int64_t i = 0; i < size; i += LANES) {
            vf y = looked_up(m->embedding + ids[t] * size, i, size, m->embedding_scale[ids[t]]);
            if (m->gain != 1.0f) y = y * m->gain;
            if (m->positions) {
                const int64_t position = begin + t % new_tokens;
                y = y + looked_up(m->positions + position * size, i, size, m->positions_scale[position]);
            }
            store(x + i, y);
        }
}

// Quantises the norms of x for the product by a matrix; y gets overwritten.
INLINE void norm(int64_t n, const Model* m, const Norm* by, const Matrix* matrix, const Room* room) {
    for (int64_t t = 0; t < n; t += ROWS)
        quantise_norms(n - t < ROWS ? n - t : ROWS, room->x + t * m->width, m, by, matrix, t, room->y, room);
}

// Adds to x what a branch computed, y, normed where the branch has a norm. Then quantises the norms of x for the
// product by a matrix, if there is one; with `before` those of the x without y. y gets overwritten.
APART void add_norm(int64_t n, const Model* m, const Norm* branch, const Norm* by, const Matrix* matrix, bool before,
                     const Room* room) {
    const int64_t step = before ? 1 : ROWS;
    for (int64_t t = 0; t < n; t += step) {
        const int64_t rows = n - t < step ? n - t : step;
        float *x = room->x + t * m->width, *y = room->y + t * m->width, ignored[ROWS];
        if (branch->weight) norm_rows(rows, y, m, branch, y, ignored);
        if (before) quantise_norms(rows, x, m, by, matrix, t, room->row, room);
        for (int64_t i = 0; i < rows * m->width; i += LANES) store(x + i, load<vf>(x + i) + load<vf>(y + i));
        if (matrix && !before) quantise_norms(rows, x, m, by, matrix, t, y, room);
    }
}

// Quantises act(gate) * up, or without a gate act(up), for the product by `down`.
template <int ACTIVATION> APART void gate_rows(int64_t n, const Model* model, const Layer* layer, const Room* room) {
    const Octave octave = octave_of(model);
    const Model own = *model, *m = &own;  // a store could change the original: it would be read again after each
    const int64_t size = m->mlp;
    float* row = room->row;
    for (int64_t t = 0; t < n; t++) {
        const float *y = room->y + t * layer->gate_up.outputs, *up = y + size;
        vi maxima = {};
        for (int64_t i = 0; i < size; i += LANES) {
            const vf active = activate<ACTIVATION>(m, octave, load<vf>(y + i));
            const vf product = m->gated ? active * load<vf>(up + i) : active;
            maxima = larger(maxima, magnitude(product));
            store(row + i, product);
        }
        quantise_peak(row, peak_of(maxima), size, m, &layer->down, t, room);
    }
}

INLINE void gate(int64_t n, const Model* m, const Layer* layer, const Room* room) {
    if (m->activation == SILU)
        gate_rows<SILU>(n, m, layer, room);
    else if (m->activation == GELU_TANH)
        gate_rows<GELU_TANH>(n, m, layer, room);
    else
        gate_rows<GELU>(n, m, layer, room);
}

// Rotates the pairs (i, i + turned) of a head.
INLINE void rotate(float* x, const float* cosines, const float* sines, int64_t turned) {
    int64_t i = 0;
    for (; i + LANES <= turned; i += LANES) {
        const vf a = load<vf>(x + i), b = load<vf>(x + i + turned);
        const vf c = load<vf>(cosines + i), s = load<vf>(sines + i);
        store(x + i, a * c - b * s);
        store(x + i + turned, b * c + a * s);
    }
    for (; i < turned; i++) {
        const float a = x[i], b = x[i + turned], c = cosines[i], s = sines[i];
        x[i] = a * c - b * s;
        x[i + turned] = b * c + a * s;
    }
}

// Quantises a head to integers: round(x * factor).
INLINE vi quantised(const float* x, float factor) { return nearest(load<vf>(x) * factor); }

// Stores a query: with VNNI its high bytes, then its low bytes.
INLINE void store_query(const float* x, int64_t dim, float factor, int16_t* to) {
    for (int64_t i = 0; i < dim; i += LANES) {
        const vi q = quantised(x + i, factor);
#if LEVEL >= 2
        store_narrow((int8_t*)to + i, q >> 8);
        store_narrow((int8_t*)to + dim + i, q);
#else
        store_narrow(to + i, q);
#endif
    }
}

// Stores a quantised key in its slot of the block that it belongs to. keys: those of one row and head.
INLINE void store_key(int8_t* keys, int64_t slot, int64_t dim, const int8_t* q) {
    int8_t* to = key_at(keys, slot, dim);
    for (int64_t i = 0; i < dim; i += KEY_BYTES) memcpy(to + i * BLOCK_KEYS, q + i, KEY_BYTES);
}

// Stores a quantised value in its slot among four. values: those of one row and head.
INLINE void store_value(int8_t* values, int64_t slot, int64_t dim, const float* x, float factor) {
    const int32_t bits = slot % 4 * 8;
    int8_t* to = values + (slot - slot % 4) * dim;
    for (int64_t i = 0; i < dim; i += LANES) {
        const vi others = load<vi>(to + 4 * i) & (int32_t)~(0xFFu << bits);
        store(to + 4 * i, others | (quantised(x + i, factor) & 0xFF) << bits);
    }
}

// Prefetches what the key and the value of a row in this slot are stored into.
INLINE void fetch_slot(const Store* cache, int64_t line, int64_t slot, int64_t dim) {
    const int64_t first = line * cache->slots;
    fetch(cache->keys + (first + slot - slot % BLOCK_KEYS) * dim, BLOCK_KEYS * dim);
    fetch(cache->values + (first + slot - slot % 4) * dim, 4 * dim);
    __builtin_prefetch(cache->key_scale + first + slot, 0, 2);
    __builtin_prefetch(cache->value_scale + first + slot, 0, 2);
    __builtin_prefetch(cache->peak + first + slot, 0, 2);
}

// Normalises and rotates up to ROWS heads x[count, D] of a token, of which those before `values` are queries and keys.
// Computes the peaks of all.
APART void prepare(int64_t count, int64_t values, const Model* m, const float* qk_norm, const float* cosines,
                    const float* sines, int64_t turned, float* x, float* peaks) {
    const int64_t dim = m->dim;
    if (values > count) values = count;
    if (qk_norm && values > 0) {
        float factors[ROWS];
        for (int64_t h = 0; h < values; h++) peaks[h] = row_peak(x + h * dim, dim);
        norm_factors(values, x, peaks, dim, m->eps, m->inverse_dim, factors);
        for (int64_t h = 0, i = 0; h < values; h++)
            for (const int64_t end = i + dim; i < end; i += LANES)
                store(x + i, (load<vf>(x + i) * factors[h]) * load<vf>(qk_norm + i));
    }
    for (int64_t h = 0; h < values; h++) rotate(x + h * dim, cosines, sines, turned);
    for (int64_t h = 0; h < count; h++) peaks[h] = row_peak(x + h * dim, dim);
}

const int64_t FETCHED_ROWS = 3;  // by which prefetching is ahead: a row takes less time than its memory

// Computes queries, keys and values of rows x new tokens from y [n, (H + 2 G) * D]: normalised, rotated, quantised.
// Keys and values go into the store.
APART void heads(int64_t rows, int64_t new_tokens, const Model* m, const Layer* layer, const float* cosines,
                  const float* sines, int64_t turned, const Store* cache, const Room* room) {
    const int64_t num_heads = m->heads, kv_heads = m->kv_heads, dim = m->dim, all_heads = num_heads + 2 * kv_heads;
    for (int64_t n = 0; n < rows * new_tokens; n++) {
        const int64_t r = n / new_tokens, t = n % new_tokens, slot = cache->slot + t;
        float peaks[ROWS];
        if (r + FETCHED_ROWS < rows)
            for (int64_t g = 0; g < kv_heads; g++) fetch_slot(cache, (r + FETCHED_ROWS) * kv_heads + g, slot, dim);
        float* x = room->y + n * all_heads * dim;
        for (int64_t h = 0; h < all_heads; h++, x += dim) {
            if (h % ROWS == 0)
                prepare(all_heads - h < ROWS ? all_heads - h : ROWS, num_heads + kv_heads - h, m,
                        layer->qk_norm ? layer->qk_norm + h * dim : nullptr, cosines + t * turned, sines + t * turned,
                        turned, x, peaks);
            const float peak = peaks[h % ROWS];
            const bool is_query = h < num_heads, is_value = h >= num_heads + kv_heads;
            const float factor = (is_query ? (float)m->query_max : 127.0f) / peak;
            const float scale = peak * (is_query ? m->inverse_query_max : 1.0f / 127.0f);
            if (is_query) {
                store_query(x, dim, factor, room->queries + (n * num_heads + h) * dim);
                room->query_scale[n * num_heads + h] = scale * m->attention_factor;
                continue;
            }
            const int64_t g = h - num_heads - (is_value ? kv_heads : 0), line = r * kv_heads + g;
            const int64_t first = line * cache->slots;
            if (is_value) {
                store_value(cache->values + first * dim, slot, dim, x, factor);
                cache->value_scale[first + slot] = scale;
                const float before = slot ? cache->peak[first + slot - 1] : 0.0f;
                cache->peak[first + slot] = scale > before ? scale : before;
                room->value_peak[n * kv_heads + g] = cache->peak[first + slot];
            } else {
                int8_t q[512];
                for (int64_t i = 0; i < dim; i += LANES) store_narrow(q + i, quantised(x + i, factor));
                store_key(cache->keys + first * dim, slot, dim, q);
                cache->key_scale[first + slot] = scale;
            }
        }
    }
}

}  // namespace

// Masses of the next token (docs/numerics.md section 6.7). kernels.h includes this file once for each LEVEL.

namespace {

const int64_t HEAD_OUTPUTS = 768;  // that are computed at once: their values stay in the cache of a core

// Quantises the norms of hidden states [n, hidden] for the product by the head.
INLINE void head_rows(int64_t n, const Model* m, const float* hidden, const Room* room) {
    for (int64_t t = 0; t < n; t++) {
        float* x = room->x + t * m->width;
        memcpy(x, hidden + t * m->hidden, sizeof(float) * m->hidden);
        memset(x + m->hidden, 0, sizeof(float) * (m->width - m->hidden));
        quantise_norms(1, x, m, &m->final_norm, &m->head, t, room->row, room);
        room->scale[t] = room->scale[t] * m->log2e;
        room->peak[t] = -INFINITY;
    }
}

// Caps the first `tokens` logits of each row of room->y[n, outputs], copies them to masses[n, stride] and raises the
// peaks of their rows.
INLINE void keep_logits(int64_t n, const Model* m, int64_t outputs, int64_t tokens, const Room* room, int64_t stride,
                        int32_t* masses) {
    const Octave octave = octave_of(m);
    for (int64_t t = 0; t < n; t++, masses += stride) {
        float* y = room->y + t * outputs;
        vf maxima = splat(room->peak[t]);
        for (int64_t i = tokens; i % LANES; i++) y[i] = -INFINITY;
        for (int64_t i = 0; i < tokens; i += LANES) {
            vf z = load<vf>(y + i);
            if (m->logit_cap != 0.0f) z = soft_cap(octave, z, m->logit_cap, m->logit_slope);
            maxima = larger(z, maxima);
            if (i + LANES <= tokens)
                store(masses + i, z);
            else
                memcpy(masses + i, &z, sizeof(float) * (tokens - i));
        }
        room->peak[t] = peak_of(maxima);
    }
}

INLINE vi masses_of(const Octave& octave, vf steps, int32_t floor_bits) {
    return floor_bits ? exp2_of(octave, steps, floor_bits) : exp2_of(octave, steps);
}

// Computes masses of V tokens from their logits, in place; sets `more` masses after them to 0.
INLINE void exponentials(const Model* m, const Octave& octave, float peak, int64_t more, int32_t* masses) {
    const int64_t whole = m->vocab - m->vocab % LANES, rest = sizeof(int32_t) * (m->vocab - whole);
    const int32_t floor = (int32_t)m->floor_bits;
    peak = peak + 0.5f;
    for (int64_t i = 0; i < whole; i += LANES) store(masses + i, masses_of(octave, peak - load<vf>(masses + i), floor));
    vf last = {};
    memcpy(&last, masses + whole, rest);
    const vi of_last = masses_of(octave, peak - last, floor);
    memcpy(masses + whole, &of_last, rest);
    memset(masses + m->vocab, 0, sizeof(int32_t) * more);
}

// Computes the masses [n, V] after hidden states [n, hidden], in rows of `stride` values; those after the V are 0. The
// weights are read once; logits wait in the place of their masses until all are known.
INLINE void head_masses(const Model* m, int64_t n, const float* hidden, const Room* room, int64_t stride,
                        int32_t* masses) {
    head_rows(n, m, hidden, room);
    for (int64_t first = 0; first < m->head.outputs; first += HEAD_OUTPUTS) {
        const int64_t rest = m->head.outputs - first, outputs = rest < HEAD_OUTPUTS ? rest : HEAD_OUTPUTS;
        const int64_t tokens = m->vocab - first < outputs ? m->vocab - first : outputs;
        multiply(m, &m->head, n, first, outputs, room);
        keep_logits(n, m, outputs, tokens, room, stride, masses + first);
    }
    const Octave octave = octave_of(m);
    for (int64_t t = 0; t < n; t++) exponentials(m, octave, room->peak[t], stride - m->vocab, masses + t * stride);
}

}  // namespace

// The functions of numerics.md sections 6.4 and 6.5 that tables compute: activations and soft caps. Included once for
// each LEVEL (kernels.h).

namespace {

// Returns E[ExpIndex(steps)], steps at least 0, from the octave of the table: all of it would not fit into the nearest
// cache. floor((B[f] + 2^(9+n)) / 2^(10+n)) is floor((floor(B[f] / 2^(9+n)) + 1) / 2). With floor_bits c it is the entry
// of masses (section 6.7), with n - c for n.
INLINE vi exp2_of(const Model* m, vf steps, int32_t floor_bits = 0) {
    const vi index = to_int(smaller(steps, (float)(EXP2_LAST + 1024 * floor_bits)));
    return ((gather(m->octave, index & 1023) >> ((index >> 10) + (9 - floor_bits))) + 1) >> 1;
}

// Returns E' for arguments in steps of the table, at least 0.
INLINE vf decay(const Model* m, vf steps) { return to_float(exp2_of(m, steps + 0.5f)) * 0x1p-20f; }

INLINE vf times_sigmoid(const Model* m, vf g, vf steps) {
    const vf e = decay(m, steps), u = g < 0.0f ? g * e : g;
    return u / (e + 1.0f);
}

template <int ACTIVATION> INLINE vf activate(const Model* m, vf g) {
    const vf size = (vf)magnitude(g);
    if (ACTIVATION == SILU) return times_sigmoid(m, g, size * m->log2e);
    if (ACTIVATION == GELU_TANH) {
        const vf a = smaller(size, 4096.0f);
        return times_sigmoid(m, g, ((a * a) * m->gelu_third + m->gelu_first) * a);
    }
    const vf part = gather(m->normal, to_int(smaller(size * 4096.0f + 0.5f, 24576.0f))) * g;
    return g < 0.0f ? part : g - part;
}

// Returns Cap(z): limit is C, slope is 2/c.
INLINE vf soft_cap(const Model* m, vf z, float limit, float slope) {
    const vf e = decay(m, (vf)magnitude(z) * slope), size = ((1.0f - e) / (e + 1.0f)) * limit;
    return z < 0.0f ? -size : size;
}

}  // namespace

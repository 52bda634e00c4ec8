// The functions of numerics.md sections 6.4 and 6.5 that tables compute: activations and soft caps. Included once for
// each LEVEL (kernels.h).

namespace {

// The octave B of the exponential table: all of the table would not fit into the nearest cache. A gather takes longer
// than everything else that is done with an entry. So with AVX-512 B[32 i + j] is B[32 i] + B[32 i] * (B[j] / 2^30 - 1),
// from registers: at most 3 units off, which change no bit of B[f] >> 9 (tests try all 1,024).
struct Octave {
    const int32_t* entries;
#if LEVEL >= 2
    vi steps[2];      // B[32 i]
    vf fractions[2];  // B[j] * 2^-30 - 1, j = 0 .. 31
#endif
};

INLINE Octave octave_of(const Model* m) {
    Octave octave = {};
    octave.entries = m->octave;
#if LEVEL >= 2
    vi lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    for (int half = 0; half < 2; half++) {
        octave.steps[half] = gather(m->octave, (lane + half * LANES) * 32);
        octave.fractions[half] = to_float(load<vi>(m->octave + half * LANES) - (1 << 30)) * 0x1p-30f;
    }
#endif
    return octave;
}

// Returns E[index] for index = 1024 n + f up to EXP2_LAST: floor((B[f] + 2^(9+n)) / 2^(10+n)) is
// floor((floor(B[f] / 2^(9+n)) + 1) / 2).
INLINE vi exp2_at(const Octave& octave, vi index) {
#if LEVEL >= 2
    const vi step = look_up(octave.steps, index >> 5);
    const vi entry = step + to_int(to_float(step) * look_up(octave.fractions, index));
#else
    const vi entry = gather(octave.entries, index & 1023);
#endif
    return ((entry >> ((index >> 10) + 9)) + 1) >> 1;
}

// Returns E[ExpIndex(steps)], steps at least 0.
INLINE vi exp2_of(const Octave& octave, vf steps) { return exp2_at(octave, to_int(smaller(steps, (float)EXP2_LAST))); }

// Returns the same of the table of masses with floor_bits c (section 6.7), which has n - c for n and needs more bits of
// B.
INLINE vi exp2_of(const Octave& octave, vf steps, int32_t floor_bits) {
    const vi index = to_int(smaller(steps, (float)(EXP2_LAST + 1024 * floor_bits)));
    return ((gather(octave.entries, index & 1023) >> ((index >> 10) + (9 - floor_bits))) + 1) >> 1;
}

// Returns E' for arguments in steps of the table, at least 0.
INLINE vf decay(const Octave& octave, vf steps) { return to_float(exp2_of(octave, steps + 0.5f)) * 0x1p-20f; }

INLINE vf times_sigmoid(const Octave& octave, vf g, vf steps) {
    const vf e = decay(octave, steps), u = g < 0.0f ? g * e : g;
    return u / (e + 1.0f);
}

template <int ACTIVATION> INLINE vf activate(const Model* m, const Octave& octave, vf g) {
    const vf size = (vf)magnitude(g);
    if (ACTIVATION == SILU) return times_sigmoid(octave, g, size * m->log2e);
    if (ACTIVATION == GELU_TANH) {
        const vf a = smaller(size, 4096.0f);
        return times_sigmoid(octave, g, ((a * a) * m->gelu_third + m->gelu_first) * a);
    }
    const vf part = gather(m->normal, to_int(smaller(size * 4096.0f + 0.5f, 24576.0f))) * g;
    return g < 0.0f ? part : g - part;
}

// Returns Cap(z): limit is C, slope is 2/c.
INLINE vf soft_cap(const Octave& octave, vf z, float limit, float slope) {
    const vf e = decay(octave, (vf)magnitude(z) * slope), size = ((1.0f - e) / (e + 1.0f)) * limit;
    return z < 0.0f ? -size : size;
}

}  // namespace

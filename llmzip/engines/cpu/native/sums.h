// Sums of masses and cumulative frequencies (docs/numerics.md section 8). kernels.h includes this file once for each
// LEVEL.

namespace {

typedef uint64_t vw __attribute__((vector_size(4 * LANES)));

// Returns the sums of pairs of neighbours, which are not negative.
INLINE vw pair_sums(vi x) { return ((vw)x & 0xFFFFFFFF) + ((vw)x >> 32); }

// Returns the sum of masses from begin to end, at most 2^28 each. Adds to `above` how many are larger than
// `token_mass`, or with `equal` as large.
INLINE int64_t sum_masses(const int32_t* masses, int64_t begin, int64_t end, int32_t token_mass, bool equal,
                          int64_t* above) {
    const int32_t minimum = token_mass + (equal ? 0 : 1);
    int64_t total = 0, i = begin;
    vw sum = {};
    vi count = {};
    for (; i + 4 * LANES <= end; i += 4 * LANES) {
        const vi a = load<vi>(masses + i), b = load<vi>(masses + i + LANES);
        const vi c = load<vi>(masses + i + 2 * LANES), d = load<vi>(masses + i + 3 * LANES);
        sum += pair_sums((a + b) + (c + d));  // 4 * 2^28 < 2^31
        count -= ((a >= minimum) + (b >= minimum)) + ((c >= minimum) + (d >= minimum));  // a true comparison is -1
    }
    for (; i + LANES <= end; i += LANES) {
        const vi some = load<vi>(masses + i);
        sum += pair_sums(some);
        count -= some >= minimum;
    }
    for (int lane = 0; lane < LANES / 2; lane++) total += (int64_t)sum[lane];
    *above += sum_of(count);
    for (; i < end; i++) {
        total += masses[i];
        *above += masses[i] >= minimum;
    }
    return total;
}

// Computes the six sums of NAME(sums) for one token.
INLINE void sums_around(int64_t vocab, int64_t group, const int32_t* masses, int64_t token, int64_t* out) {
    const int64_t first = token / group * group, end = first + group < vocab ? first + group : vocab;
    const int32_t token_mass = masses[token];
    int64_t above = 0;
    out[0] = sum_masses(masses, 0, first, token_mass, true, &above);
    out[1] = out[0] + sum_masses(masses, first, token, token_mass, true, &above);
    out[2] = out[1] + token_mass;
    out[3] = out[2] + sum_masses(masses, token + 1, end, token_mass, false, &above);
    out[4] = out[3] + sum_masses(masses, end, vocab, token_mass, false, &above);
    out[5] = above;
}

// Sums are cut to 39 bits before a table divides them, so that products with `units` are below 2^63. `total`: all of a
// table's masses or weights.
struct Table {
    uint64_t total, units;
    int shift;
};

INLINE Table table_of(int64_t total, int64_t units) {
    const int bits = 64 - __builtin_clzll((uint64_t)total | 1), shift = bits > 39 ? bits - 39 : 0;
    const uint64_t divisor = (uint64_t)total >> shift;
    return {divisor ? divisor : 1, (uint64_t)units, shift};
}

// Returns the cumulative frequency after a sum of masses or weights (numerics.md section 8).
INLINE int64_t cumulative(const Table& table, int64_t sum, int64_t index) {
    return (int64_t)(((uint64_t)sum >> table.shift) * table.units / table.total) + index;
}

// Turns the cumulative weights sums[places + 1] into the table of section 8.2.
INLINE void weighted_table(int64_t places, int64_t* sums) {
    const Table table = table_of(sums[places], (1 << 24) - places);
    for (int64_t j = 0; j <= places; j++) sums[j] = cumulative(table, sums[j], j);
}

// Computes sums[groups + 1], of the masses before each group and of all; and bounds, their cumulative frequencies: with
// units = 0 by weights.
INLINE void group_bounds(int64_t vocab, int64_t group, int64_t units, const int32_t* masses, int64_t* sums,
                         int64_t* bounds) {
    const int64_t groups = (vocab + group - 1) / group;
    int64_t ignored = 0;
    sums[0] = 0;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t end = (g + 1) * group < vocab ? (g + 1) * group : vocab;
        sums[g + 1] = sums[g] + sum_masses(masses, g * group, end, 0, true, &ignored);
    }
    if (!units) {
        for (int64_t g = 0; g <= groups; g++) bounds[g] = sums[g] + g * group;
        return weighted_table(groups, bounds);
    }
    const Table table = table_of(sums[groups], units);
    for (int64_t g = 0; g <= groups; g++)
        bounds[g] = cumulative(table, sums[g], g * group < vocab ? g * group : vocab);
}

// Computes out[group + 1], the cumulative frequencies within a group, where ids past the last one count 1 each; with
// `stretch` from 0 to 2^24, otherwise as they are.
INLINE void symbol_bounds(int64_t vocab, int64_t group, int64_t units, const int32_t* masses, const int64_t* sums,
                          int64_t which, bool stretch, int64_t* out) {
    const int64_t first = which * group, groups = (vocab + group - 1) / group;
    const Table table = table_of(sums[groups], units);
    int64_t sum = sums[which];
    for (int64_t i = 0; i <= group; i++) {
        const int64_t id = first + i, inside = id < vocab ? id : vocab;
        out[i] = cumulative(table, sum, inside) + (id - inside);
        if (id < vocab) sum += masses[id];
    }
    if (!stretch) return;
    const int64_t begin = out[0], width = out[group] - begin;
    for (int64_t i = 0; i <= group; i++) out[i] = (int64_t)((uint64_t)((out[i] - begin) << 24) / (uint64_t)width);
}

// Computes out[group + 1], the table by weights within a group; ids past the last one have mass 0.
INLINE void weighted_bounds(int64_t vocab, int64_t group, const int32_t* masses, int64_t which, int64_t* out) {
    const int64_t first = which * group;
    int64_t sum = 0;
    for (int64_t i = 0; i <= group; i++) {
        out[i] = sum + i;
        if (first + i < vocab) sum += masses[first + i];
    }
    weighted_table(group, out);
}

}  // namespace

// Sums of masses and cumulative frequencies (docs/numerics.md section 8). kernels.h includes this file once for each
// LEVEL.

namespace {

// Returns the sum of masses from begin to end, at most 2^20 each. Adds to `above` how many are larger than
// `token_mass`, or with `equal` as large.
INLINE int64_t sum_masses(const int32_t* masses, int64_t begin, int64_t end, int32_t token_mass, bool equal,
                          int64_t* above) {
    const int32_t minimum = token_mass + (equal ? 0 : 1);
    int64_t total = 0, i = begin;
    while (i + LANES <= end) {
        vi sum = {}, count = {};
        const int64_t stop = end - i > 1024 * LANES ? i + 1024 * LANES : end;  // 2^20 * 1024 < 2^31
        for (; i + LANES <= stop; i += LANES) {
            const vi some = load<vi>(masses + i);
            sum += some;
            count -= some >= minimum;  // a true comparison is -1
        }
        total += sum_of(sum);
        *above += sum_of(count);
    }
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

// Returns the cumulative frequency after a sum of masses (numerics.md section 8); the product is below 2^63.
INLINE int64_t cumulative(int64_t sum, int64_t units, int64_t total, int64_t index) {
    return (int64_t)((uint64_t)(sum * units) / (uint64_t)total) + index;
}

// Computes sums[groups + 1], of the masses before each group and of all; and bounds, their cumulative frequencies.
INLINE void group_bounds(int64_t vocab, int64_t group, int64_t units, const int32_t* masses, int64_t* sums,
                         int64_t* bounds) {
    const int64_t groups = (vocab + group - 1) / group;
    int64_t ignored = 0;
    sums[0] = 0;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t end = (g + 1) * group < vocab ? (g + 1) * group : vocab;
        sums[g + 1] = sums[g] + sum_masses(masses, g * group, end, 0, true, &ignored);
    }
    const int64_t total = sums[groups] > 0 ? sums[groups] : 1;
    for (int64_t g = 0; g <= groups; g++)
        bounds[g] = cumulative(sums[g], units, total, g * group < vocab ? g * group : vocab);
}

// Computes out[group + 1], the cumulative frequencies within a group, where ids past the last one count 1 each; with
// `stretch` from 0 to 2^24, otherwise as they are.
INLINE void symbol_bounds(int64_t vocab, int64_t group, int64_t units, const int32_t* masses, const int64_t* sums,
                          int64_t which, bool stretch, int64_t* out) {
    const int64_t first = which * group, groups = (vocab + group - 1) / group;
    const int64_t total = sums[groups] > 0 ? sums[groups] : 1;
    int64_t sum = sums[which];
    for (int64_t i = 0; i <= group; i++) {
        const int64_t id = first + i, inside = id < vocab ? id : vocab;
        out[i] = cumulative(sum, units, total, inside) + (id - inside);
        if (id < vocab) sum += masses[id];
    }
    if (!stretch) return;
    const int64_t begin = out[0], width = out[group] - begin;
    for (int64_t i = 0; i <= group; i++) out[i] = (int64_t)((uint64_t)((out[i] - begin) << 24) / (uint64_t)width);
}

}  // namespace

// Sums of masses around a token (docs/numerics.md section 8). Included once for each LEVEL (kernels.h).

namespace {

// The sum of some masses, at most 2^20 each; adds to `above` how many are more than `own`, or with `equal` as much.
INLINE int64_t sum_masses(const int32_t* masses, int64_t begin, int64_t end, int32_t own, bool equal, int64_t* above) {
    const int32_t least = own + (equal ? 0 : 1);
    int64_t total = 0, i = begin;
    while (i + LANES <= end) {
        vi sum = {}, count = {};
        const int64_t stop = end - i > 1024 * LANES ? i + 1024 * LANES : end;  // 2^20 * 1024 < 2^31
        for (; i + LANES <= stop; i += LANES) {
            const vi some = load<vi>(masses + i);
            sum += some;
            count -= some >= least;  // a comparison gives -1
        }
        total += sum_of(sum);
        *above += sum_of(count);
    }
    for (; i < end; i++) {
        total += masses[i];
        *above += masses[i] >= least;
    }
    return total;
}

INLINE void sums_around(int64_t vocab, int64_t group, const int32_t* masses, int64_t token, int64_t* found) {
    const int64_t first = token / group * group, end = first + group < vocab ? first + group : vocab;
    const int32_t own = masses[token];
    int64_t above = 0;
    found[0] = sum_masses(masses, 0, first, own, true, &above);
    found[1] = found[0] + sum_masses(masses, first, token, own, true, &above);
    found[2] = found[1] + own;
    found[3] = found[2] + sum_masses(masses, token + 1, end, own, false, &above);
    found[4] = found[3] + sum_masses(masses, end, vocab, own, false, &above);
    found[5] = above;
}

// numerics 8: the cumulative frequency behind a sum of masses; the product is below 2^63.
INLINE int64_t cumulative(int64_t sum, int64_t units, int64_t total, int64_t index) {
    return (int64_t)((uint64_t)(sum * units) / (uint64_t)total) + index;
}

// sums[groups + 1]: of the masses before each group and of all; bounds: their cumulative frequencies.
INLINE void group_bounds(int64_t vocab, int64_t group, int64_t units, const int32_t* masses, int64_t* sums, int64_t* bounds) {
    const int64_t groups = (vocab + group - 1) / group;
    int64_t nothing = 0;
    sums[0] = 0;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t end = (g + 1) * group < vocab ? (g + 1) * group : vocab;
        sums[g + 1] = sums[g] + sum_masses(masses, g * group, end, 0, true, &nothing);
    }
    const int64_t total = sums[groups] > 0 ? sums[groups] : 1;
    for (int64_t g = 0; g <= groups; g++)
        bounds[g] = cumulative(sums[g], units, total, g * group < vocab ? g * group : vocab);
}

// out[group + 1]: the cumulative frequencies within a group, ids past the last one with 1 each; with `stretch` from 0 to
// 2^24, else as they are.
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

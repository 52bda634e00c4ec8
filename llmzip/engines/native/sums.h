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

}  // namespace

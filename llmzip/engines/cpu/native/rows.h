// What is done with one row of floats: its largest magnitude, norm and quantisation (docs/numerics.md sections 2, 6.1,
// 6.2). Sizes are padded to multiples of 16 with zeros (model.h). Included once for each LEVEL (kernels.h).

namespace {

// Rows, or heads of a row, that take each step together: alone, one would wait for its own sums and divisions.
const int ROWS = 8;

// Returns the sum of squares of round(x * factor), |round| <= 2047, `size` at most 2^17.
INLINE float squares(const float* x, int64_t size, float factor) {
    int64_t total = 0;
    for (int64_t begin = 0; begin < size; begin += 512 * LANES) {  // 2047^2 * 512 < 2^31
        vi part = {};
        for (int64_t i = begin; i < size && i < begin + 512 * LANES; i += LANES) {
            vi q = nearest(load<vf>(x + i) * factor);
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

// Computes the factors 1 / r of up to ROWS rows x[rows, size] from their peaks.
INLINE void norm_factors(int64_t rows, const float* x, const float* peaks, int64_t size, float eps, float inverse_size,
                         float* factors) {
    for (int64_t r = 0; r < rows; r++) factors[r] = squares(x + r * size, size, 2047.0f / peaks[r]);
    for (int64_t r = 0; r < rows; r++) {
        const float unit = peaks[r] * (1.0f / 2047.0f), mean = (factors[r] * inverse_size) * (unit * unit);
        factors[r] = 1.0f / (float)std::sqrt((double)(mean + eps));
    }
}

// Returns the mean of a row of hidden states.
INLINE float mean_of(const float* x, const Model* m) {
    const float peak = row_peak(x, m->width), factor = 2047.0f / peak;
    vi total = {};  // 2047 * 2^17 < 2^31
    for (int64_t i = 0; i < m->width; i += LANES) total += nearest(load<vf>(x + i) * factor);
    return ((float)sum_of(total) * m->inverse_hidden) * (peak * (1.0f / 2047.0f));
}

// Computes the norms of up to ROWS rows of hidden states x[rows, width] into `to`, which may be x, and their peaks.
INLINE void norm_rows(int64_t rows, const float* x, const Model* m, const Norm* norm, float* to, float* peaks) {
    const int64_t width = m->width;
    const float *weight = norm->weight, *bias = norm->bias;
    if (m->centres) {
        for (int64_t r = 0; r < rows; r++) {
            const float mean = mean_of(x + r * width, m);
            for (int64_t i = 0; i < width; i += LANES) store(to + r * width + i, load<vf>(x + r * width + i) - mean);
            for (int64_t i = m->hidden; i < width; i++) to[r * width + i] = 0.0f;
        }
        x = to;
    }
    float factors[ROWS];
    for (int64_t r = 0; r < rows; r++) peaks[r] = row_peak(x + r * width, width);
    norm_factors(rows, x, peaks, width, m->eps, m->inverse_hidden, factors);
    for (int64_t r = 0; r < rows; r++, x += width, to += width) {
        vi maxima = {};
        for (int64_t i = 0; i < width; i += LANES) {
            vf y = (load<vf>(x + i) * factors[r]) * load<vf>(weight + i);
            if (bias) y = y + load<vf>(bias + i);
            maxima = larger(maxima, magnitude(y));
            store(to + i, y);
        }
        peaks[r] = peak_of(maxima);
    }
}

// Quantises row t of the input of `by` into room->lines and room->scale; peak: the row's.
INLINE void quantise_peak(const float* x, float peak, int64_t size, const Model* m, const Matrix* by, int64_t t,
                          const Room* room) {
    Item* to = (Item*)room->lines + t * m->planes * by->terms;
    if (m->planes == 1) {
        const float factor = 127.0f / peak;
        for (int64_t i = 0; i < size; i += LANES) store_items(to + i, nearest(load<vf>(x + i) * factor));
        room->scale[t] = peak * (1.0f / 127.0f);
        return;
    }
    const float factor = 32512.0f / peak;
    for (int64_t i = 0; i < size; i += LANES) {
        const vi whole = nearest(load<vf>(x + i) * factor), high = (whole + 128) >> 8;
        store_items(to + i, high);
        store_items(to + by->terms + i, whole - (high << 8));
    }
    room->scale[t] = peak * (1.0f / 32512.0f);
}

INLINE void quantise(const float* x, int64_t size, const Model* m, const Matrix* by, int64_t t, const Room* room) {
    quantise_peak(x, row_peak(x, size), size, m, by, t, room);
}

// Quantises the norms of up to ROWS rows of x, from row t on, which `to` has room for.
INLINE void quantise_norms(int64_t rows, const float* x, const Model* m, const Norm* norm, const Matrix* by, int64_t t,
                           float* to, const Room* room) {
    float peaks[ROWS];
    norm_rows(rows, x, m, norm, to, peaks);
    for (int64_t r = 0; r < rows; r++) quantise_peak(to + r * m->width, peaks[r], m->width, m, by, t + r, room);
}

}  // namespace

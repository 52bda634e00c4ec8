// What is done with one row of floats: its largest magnitude, norm and quantisation (docs/numerics.md sections 2, 6.1,
// 6.2). Sizes are padded to multiples of 16 with zeros (model.h). Included once for each LEVEL (kernels.h).

namespace {

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

// Returns the factor 1 / r of a row.
INLINE float norm_factor(const float* x, int64_t size, float eps, float inverse_size) {
    const float peak = row_peak(x, size), unit = peak * (1.0f / 2047.0f);
    const float mean = (squares(x, size, 2047.0f / peak) * inverse_size) * (unit * unit);
    return 1.0f / (float)std::sqrt((double)(mean + eps));
}

// Returns the mean of a row of hidden states.
INLINE float mean_of(const float* x, const Model* m) {
    const float peak = row_peak(x, m->width), factor = 2047.0f / peak;
    vi total = {};  // 2047 * 2^17 < 2^31
    for (int64_t i = 0; i < m->width; i += LANES) total += nearest(load<vf>(x + i) * factor);
    return ((float)sum_of(total) * m->inverse_hidden) * (peak * (1.0f / 2047.0f));
}

// Computes the norm of a row of hidden states into `row`, which may be the row itself.
INLINE void norm_row(const float* x, const Model* m, const Norm* norm, float* row) {
    if (m->centres) {
        const float mean = mean_of(x, m);
        for (int64_t i = 0; i < m->width; i += LANES) store(row + i, load<vf>(x + i) - mean);
        for (int64_t i = m->hidden; i < m->width; i++) row[i] = 0.0f;
        x = row;
    }
    const float factor = norm_factor(x, m->width, m->eps, m->inverse_hidden);
    for (int64_t i = 0; i < m->width; i += LANES) {
        const vf y = (load<vf>(x + i) * factor) * load<vf>(norm->weight + i);
        store(row + i, norm->bias ? y + load<vf>(norm->bias + i) : y);
    }
}

// Quantises row t of the input of `by` into room->lines and room->scale.
INLINE void quantise(const float* x, int64_t size, const Model* m, const Matrix* by, int64_t t, const Room* room) {
    const float peak = row_peak(x, size);
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

}  // namespace

// Products with int8 matrices: y[n, N] = x[n, K] * weights[N, K], with scales and biases (docs/numerics.md section
// 6.1); sums are exact in int32 (section 5: 128 * 127 * K < 2^31). A row of activations is one line of bytes for each of
// its planes, the high one first. Weights are packed once, so that what is used together is contiguous. kernels.h
// includes this file once for each LEVEL.

namespace {

const int PACKED = 16;  // outputs that are packed together

// What a line is made of: int16 for AVX2; for VNNI, which multiplies unsigned by signed bytes, 128 is added.
#if LEVEL == 1
typedef int16_t Item;
INLINE void store_items(Item* to, vi x) { store_narrow(to, x); }
#elif LEVEL == 2
typedef uint8_t Item;
INLINE void store_items(Item* to, vi x) { store_narrow((int8_t*)to, x ^ 0x80); }
#else
typedef int8_t Item;
INLINE void store_items(Item* to, vi x) { store_narrow(to, x); }
#endif

// A product of n rows by some outputs of a matrix; y is [n, outputs]. Rows are rounded up to those that a tile takes
// together, and what is computed for the others means nothing.
struct Product {
    const Item* lines;
    const int8_t* packed;
    const int32_t* sums;
    const float* weight_scale;
    const float* bias;
    const float* scale;
    float* y;
    int64_t terms, outputs;
};

// Stores LANES outputs of a row from its sums of each plane.
template <int PLANES> INLINE void finish(const Product* p, int64_t row, int64_t output, vi high, vi low) {
    vf y = to_float(high);
    if (PLANES == 2) y = y * 256.0f + to_float(low);
    y = (y * p->scale[row]) * load<vf>(p->weight_scale + output);
    store(p->y + row * p->outputs + output, p->bias ? y + load<vf>(p->bias + output) : y);
}

#if LEVEL == 2

// Multiplies R lines by 16 * W outputs.
template <int PLANES, int R, int W> INLINE void vnni_tile(const Product* p, int64_t line, int64_t output) {
    const int64_t terms = p->terms;
    const Item* a = p->lines + line * terms;
    const int8_t* packed = p->packed + output * terms;
    __m512i sum[R][W];
    for (int w = 0; w < W; w++) {
        const __m512i begin =
            _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(p->sums + output + w * LANES));
        for (int r = 0; r < R; r++) sum[r][w] = begin;
    }
    for (int64_t k = 0; k < terms; k += 4) {
        __m512i weights[W];
        for (int w = 0; w < W; w++) weights[w] = _mm512_loadu_si512(packed + (w * terms + k) * LANES);
        for (int r = 0; r < R; r++) {
            int32_t four;
            memcpy(&four, a + r * terms + k, 4);
            const __m512i spread = _mm512_set1_epi32(four);
            for (int w = 0; w < W; w++) sum[r][w] = _mm512_dpbusd_epi32(sum[r][w], spread, weights[w]);
        }
    }
    for (int r = 0; r < R; r += PLANES)
        for (int w = 0; w < W; w++)
            finish<PLANES>(p, (line + r) / PLANES, output + w * LANES, (vi)sum[r][w], (vi)sum[r + PLANES - 1][w]);
}

template <int PLANES, int W> INLINE void vnni_outputs(const Product* p, int64_t lines, int64_t output) {
    int64_t line = 0;
    for (; lines - line > 4; line += 8) vnni_tile<PLANES, 8, W>(p, line, output);
    if (lines - line > 2)
        vnni_tile<PLANES, 4, W>(p, line, output);
    else if (lines > line)
        vnni_tile<PLANES, 2, W>(p, line, output);
}

template <int PLANES> INLINE void multiply_lines(const Product* p, int64_t lines) {
    int64_t output = 0;
    for (; output + 3 * LANES <= p->outputs; output += 3 * LANES) vnni_outputs<PLANES, 3>(p, lines, output);
    for (; output < p->outputs; output += LANES) vnni_outputs<PLANES, 1>(p, lines, output);
}

#elif LEVEL == 3

// Configures tiles of 16 rows of 64 bytes: 0 to 3 hold sums, 4 and 5 lines, 6 and 7 weights.
INLINE void amx_configure() {
    alignas(64) uint8_t config[64] = {};
    config[0] = 1;
    for (int tile = 0; tile < 8; tile++) {
        config[16 + 2 * tile] = 64;
        config[48 + tile] = 16;
    }
    _tile_loadconfig(config);
}

// Computes sums [32, 32] of up to 32 lines and up to 32 outputs: with `both` of more than 16 lines, with `wide` of more
// than 16 outputs.
INLINE void amx_sums(const Product* p, int64_t line, int64_t output, bool both, bool wide, int32_t* sums) {
    const int64_t terms = p->terms;
    const Item *upper = p->lines + line * terms, *lower = upper + 16 * terms;
    const int8_t *left = p->packed + output * terms, *right = left + 16 * terms;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < terms; k += 64) {
        _tile_loadd(4, upper + k, terms);
        _tile_loadd(6, left + k * 16, 64);
        _tile_dpbssd(0, 4, 6);
        if (wide) {
            _tile_loadd(7, right + k * 16, 64);
            _tile_dpbssd(1, 4, 7);
        }
        if (both) {
            _tile_loadd(5, lower + k, terms);
            _tile_dpbssd(2, 5, 6);
            if (wide) _tile_dpbssd(3, 5, 7);
        }
    }
    _tile_stored(0, sums, 128);
    _tile_stored(1, sums + 16, 128);
    _tile_stored(2, sums + 512, 128);
    _tile_stored(3, sums + 528, 128);
}

template <int PLANES> INLINE void multiply_lines(const Product* p, int64_t lines) {
    alignas(64) int32_t sums[32 * 32];
    amx_configure();
    for (int64_t output = 0; output < p->outputs; output += 32)
        for (int64_t line = 0; line < lines; line += 32) {
            const bool wide = output + 16 < p->outputs;
            amx_sums(p, line, output, line + 16 < lines, wide, sums);
            const int64_t count = lines - line < 32 ? lines - line : 32;
            for (int64_t r = 0; r < count; r += PLANES)
                for (int64_t w = 0; w < (wide ? 32 : 16); w += LANES)
                    finish<PLANES>(p, (line + r) / PLANES, output + w, load<vi>(sums + r * 32 + w),
                                   load<vi>(sums + (r + PLANES - 1) * 32 + w));
        }
    _tile_release();
}

#else

// Multiplies R lines by 8 outputs: pairs of int16, whose sums of two products fit into int32.
template <int PLANES, int R> INLINE void avx2_tile(const Product* p, int64_t line, int64_t output) {
    const int64_t terms = p->terms;
    const Item* a = p->lines + line * terms;
    const int8_t* packed = p->packed + output / PACKED * PACKED * terms + output % PACKED * 4;
    __m256i sum[R][2];
    for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (int64_t k = 0; k < terms; k += 4) {
        __m256i weights[2];
        for (int w = 0; w < 2; w++)
            weights[w] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(packed + k * PACKED + 16 * w)));
        for (int r = 0; r < R; r++) {
            int64_t four;
            memcpy(&four, a + r * terms + k, 8);
            const __m256i spread = _mm256_set1_epi64x(four);
            for (int w = 0; w < 2; w++)
                sum[r][w] = _mm256_add_epi32(sum[r][w], _mm256_madd_epi16(spread, weights[w]));
        }
    }
    vi total[R];
    for (int r = 0; r < R; r++)  // neighbouring lanes belong to one output; hadd swaps the two middle quarters
        total[r] = (vi)_mm256_permute4x64_epi64(_mm256_hadd_epi32(sum[r][0], sum[r][1]), 0xd8);
    for (int r = 0; r < R; r += PLANES)
        finish<PLANES>(p, (line + r) / PLANES, output, total[r], total[r + PLANES - 1]);
}

template <int PLANES> INLINE void multiply_lines(const Product* p, int64_t lines) {
    for (int64_t output = 0; output < p->outputs; output += LANES) {
        int64_t line = 0;
        for (; lines - line > 2; line += 4) avx2_tile<PLANES, 4>(p, line, output);
        if (lines > line) avx2_tile<PLANES, 2>(p, line, output);
    }
}

#endif

// Multiplies n rows of room->lines by `outputs` outputs of a matrix, from `first` on, into room->y[n, outputs].
INLINE void multiply(const Model* m, const Matrix* by, int64_t n, int64_t first, int64_t outputs, const Room* room) {
    const Product p = {
        (const Item*)room->lines, by->packed + first * by->terms, by->sums + first, by->scale + first,
        by->bias ? by->bias + first : nullptr, room->scale, room->y, by->terms, outputs,
    };
    if (m->planes == 2)
        multiply_lines<2>(&p, 2 * n);
    else
        multiply_lines<1>(&p, n);
}

}  // namespace

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

// A product of n rows by some outputs of a matrix; y is [n, outputs]. Some levels round rows up to those that a tile
// takes together; what is computed for the others means nothing.
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

// Stores `width` outputs of some rows from sums [lines, stride], which a tile left in the nearest cache.
template <int PLANES>
INLINE void finish(const Product* p, int64_t line, int64_t lines, int64_t output, int64_t width, const int32_t* sums,
                   int64_t stride) {
    for (int64_t r = 0; r < lines; r += PLANES) {
        const int64_t row = (line + r) / PLANES;
        const float scale = p->scale[row];
        float* to = p->y + row * p->outputs + output;
        for (int64_t w = 0; w < width; w += LANES) {
            vf y = to_float(load<vi>(sums + r * stride + w));
            if (PLANES == 2) y = y * 256.0f + to_float(load<vi>(sums + (r + 1) * stride + w));
            y = (y * scale) * load<vf>(p->weight_scale + output + w);
            store(to + w, p->bias ? y + load<vf>(p->bias + output + w) : y);
        }
    }
}

#if LEVEL <= 2

#if LEVEL == 2
typedef __m512i Sum;
INLINE Sum spread(const Item* four) {
    int32_t bytes;
    memcpy(&bytes, four, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}
INLINE Sum weights_at(const int8_t* packed) { return _mm512_loadu_si512(packed); }
INLINE Sum add(Sum sum, Sum four, Sum weights) { return _mm512_dpbusd_epi32(sum, four, weights); }
#else
typedef __m256i Sum;  // of pairs: two neighbouring lanes belong to an output
INLINE Sum spread(const Item* four) {
    int64_t words;
    memcpy(&words, four, sizeof words);
    return _mm256_set1_epi64x(words);
}
INLINE Sum weights_at(const int8_t* packed) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)packed));
}
INLINE Sum add(Sum sum, Sum four, Sum weights) { return _mm256_add_epi32(sum, _mm256_madd_epi16(four, weights)); }
#endif

// W vectors, and the sums of R lines by W vectors of weights. They are members, because GCC 12 keeps copies of arrays in
// memory and stores them at each step.
template <int W> struct Vectors {
    Sum first;
    Vectors<W - 1> rest;
};
template <> struct Vectors<0> {};
template <int R, int W> struct Tile {
    Vectors<W> line;
    Tile<R - 1, W> rest;
};
template <int W> struct Tile<0, W> {};

// Loads vectors of weights that are `apart` bytes from each other.
template <int W> INLINE void load_weights(Vectors<W>* to, const int8_t* packed, int64_t apart) {
    if constexpr (W > 0) {
        to->first = weights_at(packed);
        load_weights(&to->rest, packed + apart, apart);
    }
}

template <int W> INLINE void add_vectors(Vectors<W>* sums, Sum four, const Vectors<W>* weights) {
    if constexpr (W > 0) {
        sums->first = add(sums->first, four, weights->first);
        add_vectors(&sums->rest, four, &weights->rest);
    }
}

template <int R, int W>
INLINE void add_lines(Tile<R, W>* sums, const Item* a, int64_t terms, const Vectors<W>* weights) {
    if constexpr (R > 0) {
        add_vectors(&sums->line, spread(a), weights);
        add_lines(&sums->rest, a + terms, terms, weights);
    }
}

// Adds the products of R lines, from `a` on, by W vectors of weights.
template <int R, int W>
INLINE void add_products(Tile<R, W>* sums, const Item* a, int64_t terms, const int8_t* packed, int64_t apart) {
    for (int64_t k = 0; k < terms; k += 4) {
        Vectors<W> weights;
        load_weights(&weights, packed + k * PACKED, apart);
        add_lines(sums, a + k, terms, &weights);
    }
}

#endif

#if LEVEL == 2

// Begins each line with minus 128 times the sums of the weights.
template <int W> INLINE void begin_line(Vectors<W>* line, const int32_t* sums_of_weights) {
    if constexpr (W > 0) {
        line->first = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(sums_of_weights));
        begin_line(&line->rest, sums_of_weights + LANES);
    }
}

template <int R, int W> INLINE void begin_lines(Tile<R, W>* sums, const Vectors<W>* line) {
    if constexpr (R > 0) {
        sums->line = *line;
        begin_lines(&sums->rest, line);
    }
}

template <int W> INLINE void store_line(const Vectors<W>* line, int32_t* to) {
    if constexpr (W > 0) {
        _mm512_storeu_si512(to, line->first);
        store_line(&line->rest, to + LANES);
    }
}

template <int R, int W> INLINE void store_lines(const Tile<R, W>* sums, int32_t* to) {
    if constexpr (R > 0) {
        store_line(&sums->line, to);
        store_lines(&sums->rest, to + W * LANES);
    }
}

// Computes the sums [R, 16 * W] of R lines and as many outputs.
template <int R, int W> APART void vnni_sums(const Product* p, int64_t line, int64_t output, int32_t* sums) {
    Vectors<W> begin;
    Tile<R, W> tile;
    begin_line(&begin, p->sums + output);
    begin_lines(&tile, &begin);
    add_products(&tile, p->lines + line * p->terms, p->terms, p->packed + output * p->terms, p->terms * PACKED);
    store_lines(&tile, sums);
}

template <int PLANES, int R, int W> INLINE void vnni_tile(const Product* p, int64_t line, int64_t output) {
    alignas(64) int32_t sums[R * W * LANES];
    vnni_sums<R, W>(p, line, output, sums);
    finish<PLANES>(p, line, R, output, W * LANES, sums, W * LANES);
}

// Multiplies the last lines, R or fewer, in one tile of their number: with few rows it matters that none is idle.
template <int PLANES, int R, int W>
INLINE void vnni_rest(const Product* p, int64_t line, int64_t lines, int64_t output) {
    if constexpr (R > 0) {
        if (lines == R)
            vnni_tile<PLANES, R, W>(p, line, output);
        else
            vnni_rest<PLANES, R - PLANES, W>(p, line, lines, output);
    }
}

template <int PLANES, int W> INLINE void vnni_outputs(const Product* p, int64_t lines, int64_t output) {
    // Each tile prefetches its share of the next weights: a step of many rows has displaced them from the caches.
    const int64_t share = (W * LANES * p->terms * 8 / lines + 63) / 64 * 64;
    const int8_t* next = p->packed + (output + W * LANES) * p->terms;
    int64_t line = 0;
    for (; lines - line >= 8; line += 8, next += share) {
        fetch(next, share);
        vnni_tile<PLANES, 8, W>(p, line, output);
    }
    vnni_rest<PLANES, 8 - PLANES, W>(p, line, lines - line, output);
}

template <int PLANES> APART void multiply_lines(const Product* p, int64_t lines) {
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

template <int PLANES> APART void multiply_lines(const Product* p, int64_t lines) {
    alignas(64) int32_t sums[32 * 32];
    amx_configure();
    for (int64_t output = 0; output < p->outputs; output += 32)
        for (int64_t line = 0; line < lines; line += 32) {
            const bool wide = output + 16 < p->outputs;
            amx_sums(p, line, output, line + 16 < lines, wide, sums);
            finish<PLANES>(p, line, lines - line < 32 ? lines - line : 32, output, wide ? 32 : 16, sums, 32);
        }
    _tile_release();
}

#else

// Stores the sums [R, 8] of pairs; hadd swaps the two middle quarters.
template <int R> INLINE void store_pairs(const Tile<R, 2>* tile, int32_t* sums) {
    if constexpr (R > 0) {
        const __m256i both = _mm256_hadd_epi32(tile->line.first, tile->line.rest.first);
        _mm256_storeu_si256((__m256i*)sums, _mm256_permute4x64_epi64(both, 0xd8));
        store_pairs(&tile->rest, sums + LANES);
    }
}

// Computes the sums [R, 8] of R lines and as many outputs: pairs of int16, whose sums of two products fit into int32.
template <int R> APART void avx2_sums(const Product* p, int64_t line, int64_t output, int32_t* sums) {
    Tile<R, 2> tile = {};
    const int8_t* packed = p->packed + output / PACKED * PACKED * p->terms + output % PACKED * 4;
    add_products(&tile, p->lines + line * p->terms, p->terms, packed, 16);
    store_pairs(&tile, sums);
}

template <int PLANES, int R> INLINE void avx2_tile(const Product* p, int64_t line, int64_t output) {
    alignas(32) int32_t sums[R * LANES];
    avx2_sums<R>(p, line, output, sums);
    finish<PLANES>(p, line, R, output, LANES, sums, LANES);
}

template <int PLANES> APART void multiply_lines(const Product* p, int64_t lines) {
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

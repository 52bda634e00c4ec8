// Products of int8 matrices: sums[n, N] = a[n, K] * weights[N, K], exact in int32 (numerics.md section 5:
// 128 * 127 * K < 2^31). Weights are packed once, so that what is used together is contiguous. kernels.h includes this
// file once for each LEVEL.

namespace {

const int PACKED = 16;  // outputs that are packed together

#if LEVEL >= 2

// Multiplies R rows by 16 * W outputs. VNNI multiplies unsigned by signed bytes: `a` has 128 added to each byte.
template <int R, int W>
INLINE void vnni_tile(const uint8_t* a, int64_t terms, const int8_t* packed, const int32_t* sums_of_weights, int32_t* out,
                      int64_t stride) {
    __m512i sum[R][W];
    for (int w = 0; w < W; w++) {
        const __m512i begin = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(sums_of_weights + w * LANES));
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
    for (int r = 0; r < R; r++)
        for (int w = 0; w < W; w++) _mm512_storeu_si512(out + r * stride + w * LANES, sum[r][w]);
}

template <int W>
INLINE void vnni_outputs(const Matrix* m, int64_t n, const uint8_t* a, int64_t at, int32_t* sums, int64_t stride) {
    const int8_t* packed = m->packed + at * m->terms;
    for (int64_t r = 0; r < n; r += 8)
        vnni_tile<8, W>(a + r * m->terms, m->terms, packed, m->sums + at, sums + r * stride + at, stride);
}

INLINE void vnni_multiply(const Matrix* m, int64_t n, const int8_t* a, uint8_t* shifted, int32_t* sums, int64_t stride) {
    const int64_t size = (n + 7) / 8 * 8 * m->terms;
    for (int64_t i = 0; i < size; i++) shifted[i] = (uint8_t)(a[i] ^ 0x80);
    int64_t at = 0;
    for (; at + 3 * LANES <= stride; at += 3 * LANES) vnni_outputs<3>(m, n, shifted, at, sums, stride);
    for (; at < stride; at += LANES) vnni_outputs<1>(m, n, shifted, at, sums, stride);
}

#endif

#if LEVEL == 3

// Configures tiles of 16 rows of 64 bytes: 0 to 3 hold sums, 4 and 5 rows of a, 6 and 7 weights.
INLINE void amx_configure() {
    alignas(64) uint8_t config[64] = {};
    config[0] = 1;
    for (int tile = 0; tile < 8; tile++) {
        config[16 + 2 * tile] = 64;
        config[48 + tile] = 16;
    }
    _tile_loadconfig(config);
}

INLINE void amx_multiply(const Matrix* m, int64_t n, const int8_t* a, int32_t* sums, int64_t stride) {
    const int64_t terms = m->terms;
    amx_configure();
    int64_t at = 0;
    for (; at + 32 <= stride; at += 32)
        for (int64_t r = 0; r < n; r += 32) {
            const int8_t* rows = a + r * terms;
            const int8_t* left = m->packed + at * terms;
            const int8_t* right = left + 16 * terms;
            const bool both = r + 16 < n;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (int64_t k = 0; k < terms; k += 64) {
                _tile_loadd(4, rows + k, terms);
                _tile_loadd(6, left + k * 16, 64);
                _tile_dpbssd(0, 4, 6);
                _tile_loadd(7, right + k * 16, 64);
                _tile_dpbssd(1, 4, 7);
                if (both) {
                    _tile_loadd(5, rows + 16 * terms + k, terms);
                    _tile_dpbssd(2, 5, 6);
                    _tile_dpbssd(3, 5, 7);
                }
            }
            int32_t* out = sums + r * stride + at;
            _tile_stored(0, out, 4 * stride);
            _tile_stored(1, out + 16, 4 * stride);
            if (both) {
                _tile_stored(2, out + 16 * stride, 4 * stride);
                _tile_stored(3, out + 16 * stride + 16, 4 * stride);
            }
        }
    for (; at < stride; at += 16)
        for (int64_t r = 0; r < n; r += 16) {
            _tile_zero(0);
            for (int64_t k = 0; k < terms; k += 64) {
                _tile_loadd(4, a + r * terms + k, terms);
                _tile_loadd(6, m->packed + at * terms + k * 16, 64);
                _tile_dpbssd(0, 4, 6);
            }
            _tile_stored(0, sums + r * stride + at, 4 * stride);
        }
    _tile_release();
}

#endif

#if LEVEL == 1

// Multiplies R rows by 8 outputs: pairs of int16, whose sums of two products fit into int32.
template <int R>
INLINE void avx2_tile(const int16_t* a, int64_t terms, const int8_t* packed, int32_t* out, int64_t stride) {
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
    for (int r = 0; r < R; r++) {
        // Neighbouring lanes belong to one output; hadd swaps the two middle quarters.
        const __m256i both = _mm256_hadd_epi32(sum[r][0], sum[r][1]);
        _mm256_storeu_si256((__m256i*)(out + r * stride), _mm256_permute4x64_epi64(both, 0xd8));
    }
}

INLINE void avx2_multiply(const Matrix* m, int64_t n, const int8_t* a, int16_t* wide, int32_t* sums, int64_t stride) {
    const int64_t terms = m->terms, size = (n + 3) / 4 * 4 * terms;
    for (int64_t i = 0; i < size; i++) wide[i] = a[i];
    for (int64_t at = 0; at < stride; at += 8)
        for (int64_t r = 0; r < n; r += 4)
            avx2_tile<4>(wide + r * terms, terms, m->packed + at / PACKED * PACKED * terms + at % PACKED * 4,
                         sums + r * stride + at, stride);
}

#endif

// Multiplies n rows, rounded up to the rows that a kernel takes together; the sums of the extra rows mean nothing.
INLINE void multiply(const Matrix* m, int64_t n, const Room* room) {
    const int64_t stride = (m->outputs + PACKED - 1) / PACKED * PACKED;
#if LEVEL == 3
    if (m->terms % 64 == 0)
        amx_multiply(m, n, room->q, room->sums, stride);
    else
        vnni_multiply(m, n, room->q, (uint8_t*)room->shifted, room->sums, stride);
#elif LEVEL == 2
    vnni_multiply(m, n, room->q, (uint8_t*)room->shifted, room->sums, stride);
#else
    avx2_multiply(m, n, room->q, (int16_t*)room->shifted, room->sums, stride);
#endif
}

}  // namespace

// The network that corrects a probability (docs/numerics.md section 10.7): two layers of integers, the same for all texts;
// must not know where its inputs come from. Included once for each level of instructions (mixer.h).
//
// Weights of two inputs that follow each other lie side by side, and so do the inputs: one instruction multiplies both
// and adds the products. Sums stay below 2^31 (section 10.8).

namespace {

// The sums of all units, plus products of `pairs` pairs of 16-bit inputs with weights of (pairs, UNITS, 2).
INLINE void add_products(int32_t* __restrict sum, const int16_t* __restrict input, const int16_t* __restrict weight, int pairs) {
#if defined(LANES) && LANES == 16
    __m512i low = _mm512_load_si512(sum), high = _mm512_load_si512(sum + 16);
    for (int i = 0; i < pairs; i++) {
        int32_t both;
        memcpy(&both, input + 2 * i, sizeof both);
        const __m512i factor = _mm512_set1_epi32(both);
        const int16_t* row = weight + (int64_t)i * 2 * UNITS;
        low = _mm512_add_epi32(low, _mm512_madd_epi16(factor, _mm512_loadu_si512(row)));
        high = _mm512_add_epi32(high, _mm512_madd_epi16(factor, _mm512_loadu_si512(row + 32)));
    }
    _mm512_store_si512(sum, low);
    _mm512_store_si512(sum + 16, high);
#elif defined(LANES) && LANES == 8
    __m256i part[4];
    for (int n = 0; n < 4; n++) part[n] = _mm256_load_si256((const __m256i*)sum + n);
    for (int i = 0; i < pairs; i++) {
        int32_t both;
        memcpy(&both, input + 2 * i, sizeof both);
        const __m256i factor = _mm256_set1_epi32(both);
        const __m256i* row = (const __m256i*)(weight + (int64_t)i * 2 * UNITS);
        for (int n = 0; n < 4; n++)
            part[n] = _mm256_add_epi32(part[n], _mm256_madd_epi16(factor, _mm256_loadu_si256(row + n)));
    }
    for (int n = 0; n < 4; n++) _mm256_store_si256((__m256i*)sum + n, part[n]);
#else
    for (int i = 0; i < pairs; i++) {
        const int32_t first = input[2 * i], second = input[2 * i + 1];
        const int16_t* row = weight + (int64_t)i * 2 * UNITS;
        for (int unit = 0; unit < UNITS; unit++) sum[unit] += first * row[2 * unit] + second * row[2 * unit + 1];
    }
#endif
}

// A unit's sum, from 0 to `most`.
INLINE int32_t output_of(int32_t sum, int32_t most) {
    const int32_t above = sum > 0 ? sum : 0;
    return above < most ? above : most;
}

// The outputs of the second layer, 0 to MAX_UNIT, which the output weights make a logit of.
INLINE void run_network(const Network& network, const int16_t* input, const int32_t* choice, int32_t* unit) {
    alignas(64) int32_t sum[UNITS];
    const int32_t* row[CHOICES];
    for (int i = 0; i < CHOICES; i++) row[i] = network.row + choice[i] * UNITS;
    for (int n = 0; n < UNITS; n++) sum[n] = row[0][n] + row[1][n] + row[2][n] + row[3][n] + row[4][n];
    add_products(sum, input, network.first, NETWORK_INPUTS / 2);
    alignas(64) int16_t hidden[UNITS];
    for (int n = 0; n < UNITS; n++) hidden[n] = (int16_t)output_of(sum[n] >> 13, MAX_HIDDEN);
    for (int n = 0; n < UNITS; n++) sum[n] = network.bias[n];
    add_products(sum, hidden, network.second, UNITS / 2);
    for (int n = 0; n < UNITS; n++) unit[n] = output_of(sum[n] >> 12, MAX_UNIT);
}

}  // namespace

// The range coder for Python (rangecoder.py), in both directions, in constriction's place and with the same bits.
// No array is read or written outside of what its arguments say, whatever the code and the tables hold.

#include "state.h"
#include "coder.h"

namespace {

struct Encoder {  // rangecoder.py has the same
    uint64_t lower, range;
    uint32_t* word;  // those that are out, with room for one more for each symbol that is to come
    int64_t words;
};

INLINE void encode(Encoder& encoder, uint64_t left, uint64_t frequency) {
    const uint64_t scale = encoder.range >> TOTAL_BITS, lower = encoder.lower + scale * left;
    if (lower < encoder.lower)  // a carry
        for (int64_t i = encoder.words; i-- > 0 && ++encoder.word[i] == 0;) {}
    encoder.lower = lower;
    encoder.range = scale * frequency;
    if (encoder.range < (uint64_t)1 << 32) {
        encoder.word[encoder.words++] = (uint32_t)(lower >> 32);
        encoder.lower <<= 32;
        encoder.range <<= 32;
    }
}

// The symbol whose interval holds the code, or -1 if no encoder wrote this; bound: `symbols` + 1 of them, symbols >= 1.
INLINE int64_t decode(Coder& coder, int64_t symbols, const int64_t* bound) {
    const uint64_t scale = coder.range >> TOTAL_BITS;
    if (coder.difference >= scale << TOTAL_BITS) return -1;  // so it is for scale = 0 as well
    const int64_t quotient = (int64_t)(coder.difference / scale);
    int64_t low = 0, high = symbols;
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        *(bound[middle] <= quotient ? &low : &high) = middle;
    }
    const uint64_t left = (uint64_t)bound[low];
    coder.difference -= scale * left;
    coder.range = scale * ((uint64_t)bound[low + 1] - left);
    refill(coder);
    return low;
}

// The probability of a one times 2^16, or 0 if it is no integer from 1 to 65535.
INLINE int sixteen_bits(float probability) {
    const float scaled = probability * 65536.0f;
    if (!(scaled >= 1.0f && scaled <= 65535.0f)) return 0;
    return (float)(int)scaled == scaled ? (int)scaled : 0;
}

INLINE bool possible(int64_t n, const float* probability) {
    for (int64_t i = 0; i < n; i++)
        if (!sixteen_bits(probability[i])) return false;
    return true;
}

}  // namespace

extern "C" void llmzip_coder_encode(Encoder* encoder, int64_t n, const int64_t* left, const int64_t* frequency) {
    for (int64_t i = 0; i < n; i++) encode(*encoder, (uint64_t)left[i], (uint64_t)frequency[i]);
}

// 0, with nothing encoded, if a probability is no multiple of 2^-16 between 0 and 1.
extern "C" int llmzip_coder_encode_bits(Encoder* encoder, int64_t n, const int32_t* bits, const float* probability) {
    if (!possible(n, probability)) return 0;
    for (int64_t i = 0; i < n; i++) {
        const uint64_t border = border_of(sixteen_bits(probability[i]));
        if (bits[i])
            encode(*encoder, border, (1 << TOTAL_BITS) - border);
        else
            encode(*encoder, 0, border);
    }
    return 1;
}

extern "C" void llmzip_coder_begin(Coder* coder) { begin(*coder); }

// 0 if no encoder wrote this; bounds: (n, symbols + 1).
extern "C" int llmzip_coder_decode(Coder* coder, int64_t n, int64_t symbols, const int64_t* bounds, int32_t* found) {
    for (int64_t i = 0; i < n; i++) {
        const int64_t symbol = decode(*coder, symbols, bounds + i * (symbols + 1));
        if (symbol < 0) return 0;
        found[i] = (int32_t)symbol;
    }
    return 1;
}

// 0 if no encoder wrote this; -1, with nothing decoded, if a probability is no multiple of 2^-16 between 0 and 1.
extern "C" int llmzip_coder_decode_bits(Coder* coder, int64_t n, const float* probability, int32_t* bits) {
    if (!possible(n, probability)) return -1;
    for (int64_t i = 0; i < n; i++) {
        bits[i] = decode_bit(*coder, sixteen_bits(probability[i]));
        if (bits[i] < 0) return 0;
    }
    return 1;
}

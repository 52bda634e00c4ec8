// Decodes binary decisions (docs/numerics.md section 9): what coder.py has constriction do, without a call for each;
// must not know what they mean. Included once for each instruction set (mixer.h).

namespace {

INLINE uint64_t next_word(Coder& coder) {
    uint64_t word = 0;
    for (int i = 0; i < 4; i++, coder.at++) word = word << 8 | (coder.at < coder.size ? coder.code[coder.at] : 0);
    return word;
}

INLINE void begin(Coder& coder) {
    coder.range = ~(uint64_t)0;
    coder.difference = next_word(coder) << 32;
    coder.difference |= next_word(coder);
}

// 0 or 1, or -1 if no encoder wrote this; one: the probability of a one times 2^16, 1 to 65535.
INLINE int decode_bit(Coder& coder, int one) {
    const uint64_t scale = coder.range >> 24, zero = (uint64_t)(65536 - one);
    const uint64_t border = (zero << 8) - (zero > 32768);
    if (coder.difference >= scale << 24) return -1;
    const int bit = coder.difference >= scale * border;
    if (bit) coder.difference -= scale * border;
    coder.range = scale * (bit ? (1 << 24) - border : border);
    if (coder.range < (uint64_t)1 << 32) {
        coder.range <<= 32;
        coder.difference = coder.difference << 32 | next_word(coder);
    }
    return bit;
}

}  // namespace

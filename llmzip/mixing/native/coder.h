// The range coder (docs/numerics.md section 9): binary decisions and intervals; must not know what they mean. The mixer
// decodes its decisions here; coder.cpp has the rest of it, for Python. Included once for each instruction set (mixer.h).

namespace {

const int TOTAL_BITS = 24;

// A zero has the interval [0, border), a one [border, 2^24); one: the probability of a one times 2^16, 1 to 65535.
INLINE uint64_t border_of(int one) {
    const uint64_t zero = (uint64_t)(65536 - one);
    return (zero << 8) - (zero > 32768);
}

// Past the end of the code lie zeros: nothing is read there.
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

INLINE void refill(Coder& coder) {
    if (coder.range < (uint64_t)1 << 32) {
        coder.range <<= 32;
        coder.difference = coder.difference << 32 | next_word(coder);
    }
}

// 0 or 1, or -1 if no encoder wrote this; one: as for border_of.
INLINE int decode_bit(Coder& coder, int one) {
    const uint64_t scale = coder.range >> TOTAL_BITS, border = border_of(one);
    if (coder.difference >= scale << TOTAL_BITS) return -1;
    const int bit = coder.difference >= scale * border;
    if (bit) coder.difference -= scale * border;
    coder.range = scale * (bit ? (1 << TOTAL_BITS) - border : border);
    refill(coder);
    return bit;
}

}  // namespace

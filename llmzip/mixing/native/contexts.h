// The contexts of the next token and the sets of weights that a text chooses (docs/numerics.md sections 10.5 and 10.7);
// must not know probabilities. Included once for each level of instructions (mixer.h).

namespace {

// What is known of a token before its first decision, besides the text.
struct Outlook {
    uint32_t guess, expected, extent;  // the model's likeliest leaf; what a match model expects, and how surely
};

// Three bytes of a row's text from `position` on, in a line that ends at `end`; 0 where they are forgotten.
INLINE uint32_t ring_bytes(const uint8_t* ring, int64_t length, int64_t position, int64_t end) {
    if (position + RING < length + 8 || position >= end) return 0;
    const uint32_t first = ring[position & (RING - 1)];
    const uint32_t second = ring[smaller(position + 1, end) & (RING - 1)];
    return first | second << 8 | (uint32_t)ring[smaller(position + 2, end) & (RING - 1)] << 16;
}

template <class... Values>
INLINE uint32_t hash_of(uint32_t state, Values... values) {
    ((state = mixed_hash(state, (uint32_t)values)), ...);
    return state;
}

INLINE void hash_contexts(const Texts& texts, int64_t row, int64_t steps, int64_t vocab, const Outlook& outlook,
                          uint32_t* out) {
    const int64_t* s = texts.scalar + row * SCALARS;
    const uint8_t* ring = texts.ring + row * RING;
    const int64_t length = s[LENGTH], tokens = s[TOKENS];
    const int32_t* end = texts.history + row * steps + tokens;
    uint32_t t[7];  // t[i]: i back
    for (int back = 1; back <= 6; back++) t[back] = tokens >= back ? end[-back] : vocab;
    uint32_t last = 0, before = 0;  // bytes 1 to 3 and 4 to 6 back
    for (int back = 0; back < 3; back++) {
        if (length > back) last |= (uint32_t)ring[(length - 1 - back) & (RING - 1)] << (8 * back);
        if (length > back + 3) before |= (uint32_t)ring[(length - 4 - back) & (RING - 1)] << (8 * back);
    }
    const int64_t column = length - s[LINE], field = s[FIELD], place = length - s[FIELD_START];
    const uint32_t up = s[ABOVE] >= 0 ? ring_bytes(ring, length, s[ABOVE] + column, s[ABOVE_END]) : 0;
    const uint32_t up2 = s[ABOVE2] >= 0 ? ring_bytes(ring, length, s[ABOVE2] + column, s[ABOVE2_END]) : 0;
    uint32_t same = 0;
    if (field < FIELDS && texts.field_above[row * FIELDS + field] >= 0)
        same = ring_bytes(ring, length, texts.field_above[row * FIELDS + field] + place, s[ABOVE_END]);
    const uint32_t word = s[WORD], guess = outlook.guess, expected = outlook.expected;
    const int32_t *after = texts.follower + 2 * t[1], *after_pair = followers_of_pair(texts, t[1], t[2]);
    out[0] = hash_of(0, 0);
    out[1] = hash_of(1, word);
    out[2] = hash_of(2, s[SHAPE]);
    out[3] = hash_of(3, t[1], t[2]);
    out[4] = hash_of(4, guess);
    out[5] = hash_of(5, word, s[WORD1]);
    out[6] = hash_of(6, after[0], after[1]);
    out[7] = hash_of(7, up, column);
    out[8] = hash_of(8, last, before);
    out[9] = hash_of(9, s[BEGINNING], field);
    out[10] = hash_of(10, last & 0xFFFF);
    out[11] = hash_of(11, same, field, smaller(place, 40));
    out[12] = hash_of(12, t[2], t[3]);
    out[13] = hash_of(13, last & 0xFF);
    out[14] = hash_of(14, expected, outlook.extent);
    out[15] = hash_of(15, expected, guess);
    out[16] = hash_of(16, field, s[CONTENT], s[BEGINNING]);
    out[17] = hash_of(17, s[CONTENT_BEFORE], s[CONTENT]);
    out[18] = hash_of(18, last);
    out[19] = hash_of(19, word, s[WORD1], s[WORD2]);
    out[20] = hash_of(20, word, s[WORD2]);
    out[21] = hash_of(21, up & 0xFFFF, last & 0xFF);
    out[22] = hash_of(22, up, up2);
    out[23] = hash_of(23, s[FIRST], word);
    out[24] = hash_of(24, s[KEY], word);
    out[25] = hash_of(25, t[1], t[2], t[3], t[4], t[5], t[6]);
    out[26] = hash_of(26, s[MARKS], word);
    out[27] = hash_of(27, last, before & 0xFF);
    out[28] = hash_of(28, last, before & 0xFFFF);
    out[29] = hash_of(29, after_pair[0], after_pair[1], t[1]);
    out[30] = hash_of(30, last >> 16, before >> 8);
    out[31] = hash_of(31, same & 0xFFFF, s[CONTENT]);
    out[32] = hash_of(32, field, word);
    out[33] = hash_of(33, field, place, last & 0xFFFF);
    out[34] = hash_of(34, s[CONTENT_BEFORE], word, field);
    out[35] = hash_of(35, s[SHAPE], field);
}

// The sets that a text chooses for all decisions of a token; those that end in `_from` are the first of several.
struct TextSets {
    int32_t token, bracket, shape, place_from, field, column_from, final_byte_from, final_shape, last_class;
};

INLINE TextSets text_sets(const Texts& texts, int64_t row, uint32_t last_token) {
    const int64_t* s = texts.scalar + row * SCALARS;
    const int64_t field = smaller(s[FIELD], 31), length = s[LENGTH];
    const int last = last_byte(texts, row), last_class = class_of(last);
    const int64_t place = smaller(length - s[FIELD_START], 63), column = smaller(length - s[LINE], 63);
    TextSets sets;
    sets.last_class = last_class;
    sets.token = BY_TOKEN + (int32_t)(mixed_hash(1, last_token) & 1023);
    sets.bracket = BY_BRACKET + 16 * bracket_of(texts.bracket[row * NESTING + s[DEPTH]]) + last_class;
    sets.shape = BY_SHAPE + 256 * last_class + (int32_t)(s[SHAPE] >> 8 & 255);
    sets.place_from = BY_PLACE + (int32_t)(128 * smaller(field, 15) + 2 * place);
    sets.field = BY_FIELD + 32 * separator_of((int)s[SEPARATOR]) + (int32_t)field;
    sets.column_from = BY_COLUMN + 16 * (int32_t)column;
    sets.final_byte_from = FINAL_BY_BYTE + 16 * last;
    sets.final_shape = FINAL_BY_SHAPE + (int32_t)(s[SHAPE] & 2047);
    return sets;
}

}  // namespace

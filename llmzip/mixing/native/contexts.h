// Hashes of the text before a token, kept up to date token by token (docs/numerics.md section 10.5); must not know
// probabilities. Included once for each level of instructions (mixer.h).

namespace {

// A 32-bit hash of a 32-bit state and a value below 2^32. Only the low 32 bits of the product count.
INLINE uint32_t mixed_hash(uint32_t state, uint32_t value) {
    const uint32_t product = (state ^ (value + 1)) * 0x2F0B4C47u;
    return product ^ (product >> 15);
}

// Three bytes of a row's text from `position` on, in a line that ends at `end`; 0 where they are forgotten.
INLINE uint32_t ring_bytes(const uint8_t* ring, int64_t length, int64_t position, int64_t end) {
    if (position + RING < length + 8 || position >= end) return 0;
    const uint32_t first = ring[position & (RING - 1)];
    const uint32_t second = ring[smaller(position + 1, end) & (RING - 1)];
    return first | second << 8 | (uint32_t)ring[smaller(position + 2, end) & (RING - 1)] << 16;
}

INLINE void hash_contexts(const Texts& texts, int64_t row, int64_t steps, int64_t vocab, uint32_t guess, uint32_t* out) {
    const int64_t* s = texts.scalar + row * SCALARS;
    const uint8_t* ring = texts.ring + row * RING;
    const int64_t length = s[LENGTH], tokens = s[TOKENS];
    const int32_t* end = texts.history + row * steps + tokens;
    const uint32_t t1 = tokens > 0 ? end[-1] : vocab, t2 = tokens > 1 ? end[-2] : vocab;
    const uint32_t t3 = tokens > 2 ? end[-3] : vocab, t4 = tokens > 3 ? end[-4] : vocab;
    uint32_t last = 0, before = 0;  // bytes 1 to 3 and 4 to 6 back
    for (int back = 0; back < 3; back++) {
        if (length > back) last |= (uint32_t)ring[(length - 1 - back) & (RING - 1)] << (8 * back);
        if (length > back + 3) before |= (uint32_t)ring[(length - 4 - back) & (RING - 1)] << (8 * back);
    }
    const int64_t column = length - s[LINE], field = s[FIELD], place = length - s[FIELD_START];
    const uint32_t above = s[ABOVE] >= 0 ? ring_bytes(ring, length, s[ABOVE] + column, s[ABOVE_END]) : 0;
    uint32_t same_field = 0;
    if (field < FIELDS && texts.field_above[row * FIELDS + field] >= 0)
        same_field = ring_bytes(ring, length, texts.field_above[row * FIELDS + field] + place, s[ABOVE_END]);
    const uint32_t word = s[WORD], bracket = texts.bracket[row * NESTING + s[DEPTH]];
    out[0] = mixed_hash(0, 0);
    out[1] = mixed_hash(1, word);
    out[2] = mixed_hash(2, s[SHAPE]);
    out[3] = mixed_hash(mixed_hash(3, t1), t2);
    out[4] = mixed_hash(4, guess);
    out[5] = mixed_hash(5, last);
    out[6] = mixed_hash(mixed_hash(6, word), s[WORD_BEFORE]);
    out[7] = mixed_hash(mixed_hash(mixed_hash(mixed_hash(7, t1), t2), t3), t4);
    out[8] = mixed_hash(mixed_hash(8, texts.follower[2 * t1]), texts.follower[2 * t1 + 1]);
    out[9] = mixed_hash(mixed_hash(9, above), column);
    out[10] = mixed_hash(mixed_hash(10, last), before);
    out[11] = mixed_hash(mixed_hash(11, s[BEGINNING]), field);
    out[12] = mixed_hash(mixed_hash(12, last & 0xFFFF), last & 0xFF);
    out[13] = mixed_hash(mixed_hash(mixed_hash(13, same_field), field), smaller(place, 15));
    out[14] = mixed_hash(mixed_hash(14, bracket), t1);
    out[15] = mixed_hash(mixed_hash(mixed_hash(15, s[BEGINNING_BEFORE]), smaller(column, 40)), column > 0 ? t1 : 0);
    out[16] = mixed_hash(mixed_hash(16, t2), t3);
    out[17] = mixed_hash(17, last & 0xFF);
}

// The last byte of a row's text, 0 at its beginning.
INLINE int last_byte(const Texts& texts, int64_t row) {
    const int64_t length = texts.scalar[row * SCALARS + LENGTH];
    return length > 0 ? texts.ring[row * RING + ((length - 1) & (RING - 1))] : 0;
}

// Digits 1, small letters 2, capitals 3, bytes above 127 4, all others themselves.
INLINE int kind_of(int byte) {
    if (byte >= '0' && byte <= '9') return 1;
    if (byte >= 'a' && byte <= 'z') return 2;
    if (byte >= 'A' && byte <= 'Z') return 3;
    return byte >= 128 ? 4 : byte;
}

INLINE void append_byte(const Texts& texts, int64_t row, int byte) {
    int64_t* s = texts.scalar + row * SCALARS;
    int64_t* here = texts.field_here + row * FIELDS;
    texts.ring[row * RING + (s[LENGTH] & (RING - 1))] = byte;
    const int64_t length = ++s[LENGTH];
    const int kind = kind_of(byte);
    const uint32_t shape = s[SHAPE];
    // Runs of digits and letters are cut after two.
    if (!(kind >= 1 && kind <= 3 && (shape & 0xFF) == (uint32_t)kind && (shape >> 8 & 0xFF) == (uint32_t)kind))
        s[SHAPE] = shape << 8 | kind;
    if (kind >= 1 && kind <= 4) {
        s[WORD] = mixed_hash(s[WORD], kind == 3 ? byte + 32 : byte);
    } else if (s[WORD]) {
        s[WORD_BEFORE] = s[WORD];
        s[WORD] = 0;
    }
    if (byte == '\n') {
        s[ABOVE] = s[LINE];
        s[ABOVE_END] = length - 1;
        s[LINE] = s[FIELD_START] = length;
        s[FIELD] = 0;
        s[BEGINNING_BEFORE] = s[BEGINNING];
        s[BEGINNING] = 0;
        memcpy(texts.field_above + row * FIELDS, here, FIELDS * sizeof *here);
        for (int i = 0; i < FIELDS; i++) here[i] = -1;
        here[0] = length;
        return;
    }
    if (length - s[LINE] <= 3) s[BEGINNING] = mixed_hash(s[BEGINNING], byte);
    const bool opening = byte == '(' || byte == '<' || byte == '[' || byte == '{';
    const bool closing = byte == ')' || byte == '>' || byte == ']' || byte == '}';
    if (opening || closing || byte == '\t' || byte == '"' || byte == ',' || byte == ':' || byte == ';' || byte == '=' ||
        byte == '|') {
        s[FIELD]++;
        s[FIELD_START] = length;
        if (s[FIELD] < FIELDS) here[s[FIELD]] = length;
    }
    if (opening) {
        s[DEPTH] = smaller(s[DEPTH] + 1, NESTING - 1);
        texts.bracket[row * NESTING + s[DEPTH]] = byte;
    } else if (closing && s[DEPTH] > 0) {
        s[DEPTH]--;
    }
}

INLINE void append_token(const Texts& texts, int64_t row, int64_t steps, int32_t leaf) {
    int64_t* tokens = texts.scalar + row * SCALARS + TOKENS;
    int32_t* end = texts.history + row * steps + *tokens;
    if (*tokens > 0) {
        int32_t* follower = texts.follower + 2 * (int64_t)end[-1];
        follower[1] = follower[0];
        follower[0] = leaf + 1;
    }
    *end = leaf;
    ++*tokens;
    for (int64_t i = texts.token_start[leaf]; i < texts.token_start[leaf + 1]; i++)
        append_byte(texts, row, texts.token_byte[i]);
}

}  // namespace

// What a row's text says about the next token, kept up to date byte by byte (docs/numerics.md section 10.5); must not know
// probabilities. Included once for each level of instructions (mixer.h).

namespace {

// A 32-bit hash of a 32-bit state and a value below 2^32. Only the low 32 bits of the product count.
INLINE uint32_t mixed_hash(uint32_t state, uint32_t value) {
    const uint32_t product = (state ^ (value + 1)) * 0x2F0B4C47u;
    return product ^ (product >> 15);
}

// Digits 1, small letters 2, capitals 3, bytes above 127 4, all others themselves.
INLINE int kind_of(int byte) {
    if (byte >= '0' && byte <= '9') return 1;
    if (byte >= 'a' && byte <= 'z') return 2;
    if (byte >= 'A' && byte <= 'Z') return 3;
    return byte >= 128 ? 4 : byte;
}

// 1 to 4 for the brackets that open, 0 for none.
INLINE int bracket_of(int byte) { return byte == '(' ? 1 : byte == '<' ? 2 : byte == '[' ? 3 : byte == '{' ? 4 : 0; }
INLINE bool is_opening(int byte) { return bracket_of(byte) != 0; }
INLINE bool is_closing(int byte) { return byte == ')' || byte == '>' || byte == ']' || byte == '}'; }

// What ends a field: 1 to 15, 0 for all other bytes.
INLINE int separator_of(int byte) {
    switch (byte) {
        case '(': return 1;
        case ')': return 2;
        case '<': return 3;
        case '>': return 4;
        case '[': return 5;
        case ']': return 6;
        case '{': return 7;
        case '}': return 8;
        case '\t': return 9;
        case '"': return 10;
        case ',': return 11;
        case ':': return 12;
        case ';': return 13;
        case '=': return 14;
        case '|': return 15;
        default: return 0;
    }
}

// The class of a row's last byte, 0 to 15.
INLINE int class_of(int byte) {
    const int kind = kind_of(byte);
    if (kind <= 4) return kind;
    if (is_opening(byte)) return 10;
    if (is_closing(byte)) return 11;
    switch (byte) {
        case ' ': return 5;
        case '\n': return 6;
        case '\t': return 7;
        case '"': return 8;
        case ',': return 9;
        case '.': return 12;
        case '=': case ':': return 13;
        case '/': case '-': case '_': return 14;
        default: return 15;
    }
}

// The last byte of a row's text, 0 at its beginning.
INLINE int last_byte(const Texts& texts, int64_t row) {
    const int64_t length = texts.scalar[row * SCALARS + LENGTH];
    return length > 0 ? texts.ring[row * RING + ((length - 1) & (RING - 1))] : 0;
}

INLINE void begin_line(const Texts& texts, int64_t row) {
    int64_t* s = texts.scalar + row * SCALARS;
    int64_t* here = texts.field_here + row * FIELDS;
    const int64_t length = s[LENGTH];
    s[ABOVE2] = s[ABOVE];
    s[ABOVE2_END] = s[ABOVE_END];
    s[ABOVE] = s[LINE];
    s[ABOVE_END] = length - 1;
    s[LINE] = s[FIELD_START] = length;
    s[CONTENT_BEFORE] = s[CONTENT];
    s[FIELD] = s[CONTENT] = s[BEGINNING] = s[FIRST] = 0;
    memcpy(texts.field_above + row * FIELDS, here, FIELDS * sizeof *here);
    for (int i = 0; i < FIELDS; i++) here[i] = -1;
    here[0] = length;
}

INLINE void append_byte(const Texts& texts, int64_t row, int byte) {
    int64_t* s = texts.scalar + row * SCALARS;
    texts.ring[row * RING + (s[LENGTH] & (RING - 1))] = byte;
    const int64_t length = ++s[LENGTH];
    const int kind = kind_of(byte);
    const uint32_t shape = s[SHAPE];
    // Runs of digits and letters are cut after two.
    if (!(kind >= 1 && kind <= 3 && (shape & 0xFF) == (uint32_t)kind && (shape >> 8 & 0xFF) == (uint32_t)kind))
        s[SHAPE] = shape << 8 | kind;
    if (kind >= 1 && kind <= 4) {
        s[WORD] = mixed_hash(s[WORD], kind == 3 ? byte + 32 : byte);
    } else {
        s[MARKS] = (s[MARKS] << 8 | byte) & 0xFFFFFF;
        if (s[WORD]) {
            s[WORD2] = s[WORD1];
            s[WORD1] = s[WORD];
            s[WORD] = 0;
            if (!s[FIRST]) s[FIRST] = s[WORD1];
        }
    }
    if (byte == ':' || byte == '=') s[KEY] = s[WORD1];
    if (byte == '\n') return begin_line(texts, row);
    if (length - s[LINE] <= 3) s[BEGINNING] = mixed_hash(s[BEGINNING], byte);
    s[CONTENT] = mixed_hash(s[CONTENT], byte);
    if (!separator_of(byte)) return;
    s[FIELD]++;
    s[FIELD_START] = length;
    s[SEPARATOR] = byte;
    s[CONTENT_BEFORE] = s[CONTENT];
    s[CONTENT] = 0;
    if (s[FIELD] < FIELDS) texts.field_here[row * FIELDS + s[FIELD]] = length;
    if (is_opening(byte)) {
        s[DEPTH] = smaller(s[DEPTH] + 1, NESTING - 1);
        texts.bracket[row * NESTING + s[DEPTH]] = byte;
    } else if (is_closing(byte) && s[DEPTH] > 0) {
        s[DEPTH]--;
    }
}

// The last two leaves, plus 1, that came after a pair of leaves.
INLINE int32_t* followers_of_pair(const Texts& texts, uint32_t t1, uint32_t t2) {
    return texts.pair_follower + 2 * (int64_t)(mixed_hash(t1, t2) & (PAIRS - 1));
}

INLINE void remember_follower(int32_t* followers, int32_t leaf) {
    followers[1] = followers[0];
    followers[0] = leaf + 1;
}

INLINE void append_token(const Texts& texts, int64_t row, int64_t steps, int64_t vocab, int32_t leaf) {
    int64_t* tokens = texts.scalar + row * SCALARS + TOKENS;
    int32_t* end = texts.history + row * steps + *tokens;
    if (*tokens > 0) {
        remember_follower(texts.follower + 2 * (int64_t)end[-1], leaf);
        remember_follower(followers_of_pair(texts, end[-1], *tokens > 1 ? end[-2] : vocab), leaf);
    }
    *end = leaf;
    ++*tokens;
    for (int64_t i = texts.token_start[leaf]; i < texts.token_start[leaf + 1]; i++)
        append_byte(texts, row, texts.token_byte[i]);
}

}  // namespace

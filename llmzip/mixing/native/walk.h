// The walk over a frame's decisions, for encoding and decoding alike (docs/numerics.md section 10.1): steps, then groups
// of rows, then depths of the tree, then rows; must not know engines or files. Included once for each level of
// instructions (mixer.h).

namespace {

const int MATCH_TOKENS[MATCHES] = {12, 6, 3};

struct Group {
    Place place[GROUP];
    int64_t first, size;
};

INLINE bool is_known(const Mixer& m, int64_t pointer) {
    const int64_t row = pointer / m.tree.steps;
    return row < m.tree.rows && pointer - row * m.tree.steps < m.texts.scalar[row * SCALARS + TOKENS];
}

INLINE void begin_token(const Mixer& m, Place& place, int64_t row, int64_t guess) {
    const int64_t steps = m.tree.steps, tokens = m.texts.scalar[row * SCALARS + TOKENS];
    place.row = row;
    place.node = 0;
    for (int i = USED_INPUTS; i < INPUTS; i++) place.inputs[i] = 0;
    for (int i = USED_NETWORK_INPUTS; i < NETWORK_INPUTS; i++) place.network_input[i] = 0;
    place.before = (int32_t)(tokens > 0 ? m.texts.history[row * steps + tokens - 1] : m.tree.vocab);
    place.age = tokens > 0 ? (int32_t)smaller(64 - __builtin_clzll((uint64_t)tokens), 15) : 0;
    place.guess = (int32_t)(guess & ((1 << CONFIDENCE_SHIFT) - 1));
    place.confidence = (int32_t)(guess >> CONFIDENCE_SHIFT);
    Outlook outlook = {(uint32_t)place.guess, (uint32_t)m.tree.vocab + 1, 0};
    for (int match = 0; match < MATCHES; match++) {
        const int64_t pointer = m.matches.pointer[row * MATCHES + match];
        place.expected[match] = pointer >= 0 && is_known(m, pointer) ? m.texts.history[pointer] : -1;
        if (place.expected[match] >= 0 && !outlook.extent) {
            outlook.expected = (uint32_t)place.expected[match];
            outlook.extent = 4 * match + 1 + (uint32_t)smaller(m.matches.length[row * MATCHES + match] >> 2, 3);
        }
    }
    hash_contexts(m.texts, row, steps, m.tree.vocab, outlook, place.hash);
    locate(m.learned, place, m.tree.treelet[0]);
    place.text_sets = text_sets(m.texts, row, (uint32_t)place.before);
    ask_for_sets(m.learned, (int32_t)m.tree.vocab - 1, place);
    ask_ahead(m.learned, place);
}

INLINE void predict_row(const Mixer& m, Place& place, int depth, int model) {
    if (!place.found) find_blocks(m.learned, place);
    int longest = 0, side = 0;
    for (int match = 0; match < MATCHES; match++) {
        int64_t length = 0;
        int bit = 0;
        if (place.expected[match] >= 0) {
            if (is_below(m.tree, place.node, place.expected[match])) {
                bit = bit_towards(m.tree, place.node, place.expected[match]);
                length = m.matches.length[place.row * MATCHES + match];
                if (!longest) {
                    longest = 11 - 5 * match + (int)smaller(length >> (3 - match), 4);
                    side = 1 + bit;
                }
            } else {
                place.expected[match] = -1;
            }
        }
        set_match(m.learned, place, match, length, bit);
    }
    predict(m, place, model, depth, longest, side);
}

// Where tokens like the last ones, this leaf included, were found last; asks the memory for it.
INLINE void ask_for_matches(const Mixer& m, Place& place) {
    const int64_t before = m.texts.scalar[place.row * SCALARS + TOKENS];
    const int32_t* end = m.texts.history + place.row * m.tree.steps + before;
    for (int match = 0; match < MATCHES; match++) {
        place.found_at[match] = nullptr;
        if (before + 1 < MATCH_TOKENS[match]) continue;
        uint32_t key = mixed_hash(0, place.leaf);
        for (int back = 1; back < MATCH_TOKENS[match]; back++) key = mixed_hash(key, end[-back]);
        place.found_at[match] = m.matches.found + ((int64_t)match << MATCH_BITS) + (key & ((1 << MATCH_BITS) - 1));
        __builtin_prefetch(place.found_at[match], 1);
    }
}

// Learns the bit and goes to the child.
INLINE void go_on(const Mixer& m, Place& place, int bit) {
    keep_sample(m.samples, place, bit);
    learn(m, place, bit);
    const int32_t child = m.tree.child[2 * place.node + bit];
    place.node = child;
    if (child < 0) {
        place.leaf = -1 - child;
        ask_for_matches(m, place);
        return;
    }
    descend(&place.span, place.middle, bit);
    if (m.tree.treelet[child] != place.treelet) locate(m.learned, place, m.tree.treelet[child]);
    ask_ahead(m.learned, place);
}

// Appends a token to its row and moves the matches on.
INLINE void end_token(const Mixer& m, const Place& place) {
    const int64_t row = place.row, steps = m.tree.steps, begin = row * steps;
    const int32_t leaf = place.leaf;
    const int32_t* history = m.texts.history;
    append_token(m.texts, row, steps, m.tree.vocab, leaf);
    const int64_t tokens = m.texts.scalar[row * SCALARS + TOKENS], end = begin + tokens;
    for (int match = 0; match < MATCHES; match++) {
        int64_t &pointer = m.matches.pointer[row * MATCHES + match], &length = m.matches.length[row * MATCHES + match];
        // This row is one token longer by now, but the token that was expected is before its end.
        if (pointer >= 0 && is_known(m, pointer) && history[pointer] == leaf) {
            pointer++;
            length++;
        } else {
            pointer = -1;
            length = 0;
        }
        if (!place.found_at[match]) continue;
        int32_t& found = *place.found_at[match];
        const int64_t after = found - m.matches.base;
        if (pointer < 0 && after > 0) {
            const int64_t last = after - 1, first = last / steps * steps;
            int64_t agree = 0;
            while (agree < MAX_MATCH && agree < tokens && last - agree >= first &&
                   history[last - agree] == history[end - 1 - agree])
                agree++;
            if (agree >= MATCH_TOKENS[match]) {
                pointer = after;
                length = agree;
            }
        }
        found = (int32_t)(m.matches.base + end);
    }
}

INLINE int64_t active_rows(const Tree& tree, int64_t step) { return step < tree.full_steps ? tree.rows : tree.long_rows; }

// Lets the network correct what the mixer predicts for the rows of a group that are not at a leaf: one after the other,
// so that its weights stay in the innermost cache.
INLINE void correct_group(const Mixer& m, Group& group) {
    if (!m.with_model) return;
    for (int at = 0; at < group.size; at++)
        if (group.place[at].node >= 0) correct(m, group.place[at]);
}

// Probabilities and bits of the decisions of a group; returns how many.
INLINE int64_t encode_group(const Mixer& m, Group& group, int64_t step, float* probability, int32_t* bits) {
    int64_t done = 0;
    const int64_t* start = m.known.start + group.first;
    for (int at = 0; at < group.size; at++)
        begin_token(m, group.place[at], group.first + at, m.with_model ? (int64_t)m.known.guess[start[at] + step] : 0);
    for (int depth = 0, busy = 1; busy; depth++) {
        const int64_t before = done;
        for (int at = 0; at < group.size; at++) {
            Place& place = group.place[at];
            if (place.node < 0) continue;
            const int64_t token = start[at] + step;
            predict_row(m, place, depth, m.with_model ? m.known.logit[m.known.logit_start[token] + depth] : 0);
            bits[done++] = bit_towards(m.tree, place.node, m.known.leaf[token]);
        }
        busy = done > before;
        correct_group(m, group);
        int64_t learnt = before;
        for (int at = 0; at < group.size; at++) {
            Place& place = group.place[at];
            if (place.node < 0) continue;
            probability[learnt] = (float)place.probability * 0x1p-16f;
            go_on(m, place, bits[learnt++]);
        }
    }
    for (int at = 0; at < group.size; at++) end_token(m, group.place[at]);
    return done;
}

// False if no encoder wrote this.
INLINE bool decode_group(Mixer& m, Group& group) {
    for (int at = 0; at < group.size; at++) {
        Place& place = group.place[at];
        const int64_t row = group.first + at;
        begin_token(m, place, row, m.with_model ? m.masses.guess[row] : 0);
        if (m.with_model) place.span = whole(row_of(m.masses, m.tree, row), m.tree);
    }
    for (int depth = 0, busy = 1; busy; depth++) {
        busy = 0;
        for (int at = 0; at < group.size; at++) {
            Place& place = group.place[at];
            if (place.node < 0) continue;
            int model = 0;
            if (m.with_model)
                model = model_logit(row_of(m.masses, m.tree, place.row), m.tree, place.node, place.span, &place.middle);
            predict_row(m, place, depth, model);
            busy = 1;
        }
        correct_group(m, group);
        int bit[GROUP];
        for (int at = 0; at < group.size; at++)
            if (group.place[at].node >= 0 && (bit[at] = decode_bit(m.coder, group.place[at].probability)) < 0) return false;
        for (int at = 0; at < group.size; at++)
            if (group.place[at].node >= 0) go_on(m, group.place[at], bit[at]);
    }
    for (int at = 0; at < group.size; at++) end_token(m, group.place[at]);
    return true;
}

}  // namespace

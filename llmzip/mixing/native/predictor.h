// Experts, mixing and learning for one binary decision of one row (docs/numerics.md sections 10.4, 10.7, 10.8); must not
// know the order of tokens, frames or the coder. Included once for each level of instructions (mixer.h).

namespace {

// A row of a map of BUCKETS entries, and where a logit falls between two of them.
struct Reading {
    int32_t* entry;  // the lower one
    int32_t part;    // of 128, towards the upper one
};

// One row of a group, from a prediction to its update.
struct Place {
    alignas(64) int32_t inputs[INPUTS];
    alignas(64) uint32_t block[CONTEXTS];
    uint32_t hash[CONTEXTS];
    uint8_t check[CONTEXTS], state[CONTEXTS];
    int64_t row, expected[MATCHES];
    int32_t node, treelet, slot, leaf, before, guess, confidence;
    int32_t match_entry[MATCHES], match_bit[MATCHES];  // an entry of 0: the model does not speak
    int32_t* found_at[MATCHES];  // where the match models look for earlier tokens once the leaf is known
    TextSets text_sets;
    int32_t chosen[SETS], final_set[FINALS], final_logit[FINALS], pair, age, row_choice[CHOICES], probability;
    alignas(32) int32_t logit[SETS];
    alignas(64) int16_t network_input[NETWORK_INPUTS];
    alignas(64) int32_t unit[UNITS];
    Reading by_node, by_pair, model_by_node, model_by_match;
    bool found;  // blocks hold what was asked for
    Span span;   // the masses of the leaves below the node
    int64_t middle;
};

INLINE int32_t* weights(const Learned& learned, int32_t set) { return learned.weight + (int64_t)set * INPUTS; }

// The row of the place's last token and node in the pair map, a new one if they never came before.
INLINE int32_t pair_of(const Learned& learned, const Place& place) {
    int32_t& row = learned.pair_row[(place.before * 4099 + place.node * 31) & (PAIRS - 1)];
    if (!row) {
        row = ++learned.pair_row[PAIRS];
        memcpy(learned.pair_map + (int64_t)row * BUCKETS, learned.pair_map, BUCKETS * sizeof *learned.pair_map);
    }
    return row;
}

// Where the blocks of a treelet are, and asks the memory for them; nothing changes.
INLINE void locate(const Learned& learned, Place& place, int32_t treelet) {
    const uint32_t salt = (uint32_t)treelet * 0x9E3779B1u;
    for (int context = 0; context < CONTEXTS; context++) {
        const uint64_t key = (uint64_t)(place.hash[context] ^ salt) * 0x5851F42Du;
        place.block[context] = (key >> 28) & learned.last_block;
        place.check[context] = (key >> 20 & 0xFF) ? key >> 20 & 0xFF : 1;
        __builtin_prefetch(learned.blocks + (int64_t)place.block[context] * BLOCK_BYTES, 1);
    }
    place.treelet = treelet;
    place.found = false;
}

INLINE void ask_for(const int32_t* values, int count) {
    for (int i = 0; i < count; i += 16) __builtin_prefetch(values + i, 1);
}

// Asks the memory for what the prediction at the place's node will read.
INLINE void ask_ahead(const Learned& learned, Place& place) {
    place.pair = pair_of(learned, place);
    ask_for(weights(learned, place.node), INPUTS);
    ask_for(learned.node_map + (int64_t)place.node * BUCKETS, BUCKETS);
    ask_for(learned.model_node_map + (int64_t)place.node * BUCKETS, BUCKETS);
    ask_for(learned.pair_map + (int64_t)place.pair * BUCKETS, BUCKETS);
}

// Asks for the sets that the text chose, which later decisions of the token use again.
INLINE void ask_for_sets(const Learned& learned, int32_t nodes, const Place& place) {
    const TextSets& sets = place.text_sets;
    const int32_t asked[] = {sets.token, sets.bracket, sets.shape, sets.place_from, sets.field};
    for (int32_t set : asked) ask_for(weights(learned, nodes + set), INPUTS);
}

// Finds the block of each context, or makes room for it.
INLINE void find_blocks(const Learned& learned, Place& place) {
    for (int context = 0; context < CONTEXTS; context++) {
        const int64_t index = place.block[context];
        uint8_t* block = learned.blocks + index * BLOCK_BYTES;
        const uint8_t check = place.check[context];
        if (block[0] != check) {
            uint8_t* other = learned.blocks + (index ^ 1) * BLOCK_BYTES;
            if (other[0] == check) {
                block = other;
            } else {
                // The one whose first node was seen less often makes room.
                if (learned.seen[other[1]] < learned.seen[block[1]]) block = other;
                memset(block, 0, BLOCK_BYTES);
                block[0] = check;
            }
            place.block[context] = (block - learned.blocks) / BLOCK_BYTES;
        }
    }
    place.found = true;
}

// Sets the inputs of a match model; length: tokens that agree, or 0 if it does not speak.
INLINE void set_match(const Learned& learned, Place& place, int match, int64_t length, int bit) {
    const int entry = (int)(smaller(length, 16) + smaller(larger(length - 16, 0) >> 2, 15));
    int32_t* input = place.inputs + MATCH + 2 * match;
    place.match_entry[match] = entry;
    place.match_bit[match] = bit;
    if (!length) {
        input[0] = input[1] = 0;
        return;
    }
    const int32_t probability = learned.match_map[match * MATCH_LENGTHS + entry] >> 10;
    const int32_t one = learned.stretch[probability >> 10], two = ((probability >> 6) - 32768) >> 6;
    input[0] = bit ? one : -one;
    input[1] = bit ? two : -two;
}

// What a set of `count` weights makes of as many inputs; the sum stays below 2^31 (section 10.8).
INLINE int32_t mixture(const int32_t* __restrict weight, const int32_t* __restrict inputs, int count) {
    int32_t sum = 1 << 11;
    for (int i = 0; i < count; i++) sum += (weight[i] >> 15) * inputs[i];
    return (int32_t)clamped(sum >> 12, -MAX_LOGIT, MAX_LOGIT);
}

// Moves the weights against an error, at most 2^16, where 2^16 is 1; rate: at most 1296, where 2^16 is 1.
INLINE void train(int32_t* __restrict weight, const int32_t* __restrict inputs, int count, int32_t error, int32_t rate) {
    const int32_t step = (error * rate + (1 << 12)) >> 13;
    for (int i = 0; i < count; i++) {
        const int32_t value = weight[i] + step * inputs[i];
        const int32_t above = value > -MAX_WEIGHT ? value : -MAX_WEIGHT;
        weight[i] = above < MAX_WEIGHT ? above : MAX_WEIGHT;
    }
}

// Finds a logit's place in a row of a map.
INLINE Reading reading(int32_t* row, int32_t logit) {
    const int32_t at = (int32_t)clamped(logit + 2048, 0, 4095);
    return {row + (at >> 7), at & 127};
}

// A probability times 2^16.
INLINE int32_t value_of(const Reading& read) {  // 2^20 * 2^7 < 2^31
    return (read.entry[0] * (128 - read.part) + read.entry[1] * read.part) >> 11;
}

// Lets the network correct the mixed probability.
INLINE void correct(const Mixer& m, Place& place) {
    const Learned& learned = m.learned;
    int16_t* input = place.network_input;
    const int mixed = place.probability;
    const int difference = logarithm(m.tree, mixed) - logarithm(m.tree, 65536 - mixed);
    const int32_t base = (int32_t)clamped(difference, -MAX_LOGIT, MAX_LOGIT);
    for (int i = 0; i < USED_INPUTS; i++) input[i] = (int16_t)place.inputs[i];
    // Two at once, as they are read: a processor waits for what was just stored in smaller parts.
    for (int context = 0; context < CONTEXTS; context += 2) {
        const uint32_t first = (uint16_t)learned.seen_logit[place.state[context]];
        const uint32_t both = first | (uint32_t)learned.seen_logit[place.state[context + 1]] << 16;
        memcpy(input + NETWORK_SEEN + context, &both, sizeof both);
    }
    for (int i = 0; i < SETS; i++) input[NETWORK_LOGITS + i] = (int16_t)place.logit[i];
    input[NETWORK_MIXED] = (int16_t)base;
    input[NETWORK_MAPS] = (int16_t)learned.stretch[value_of(place.by_node) >> 4];
    input[NETWORK_MAPS + 1] = (int16_t)learned.stretch[value_of(place.by_pair) >> 4];
    run_network(m.network, input, place.row_choice, place.unit);
    const int32_t correction = mixture(learned.output_weight, place.unit, UNITS);
    place.probability = learned.squash[clamped(base + correction, -MAX_LOGIT, MAX_LOGIT) + MAX_LOGIT];
}

// The mixed probability of a one at the place's node, times 2^16. longest, side: what the match models say.
INLINE void predict(const Mixer& m, Place& place, int model, int depth, int longest, int side) {
    const Learned& learned = m.learned;
    const Tree& tree = m.tree;
    int32_t* inputs = place.inputs;
    const int32_t nodes = (int32_t)tree.vocab - 1, node = place.node, shallow = (int32_t)smaller(depth, 15);
    place.slot = tree.slot[node];
    for (int context = 0; context < CONTEXTS; context++)
        place.state[context] = learned.blocks[(int64_t)place.block[context] * BLOCK_BYTES + place.slot];
    for (int context = 0; context < CONTEXTS; context++) {
        const int state = place.state[context];
        const int32_t logit = learned.stretch[learned.state_map[context * 256 + state] >> 20];
        inputs[context] = state ? logit : 0;
    }
    inputs[MODEL] = model;
    inputs[CONSTANT] = 256;
    place.model_by_node = reading(learned.model_node_map + (int64_t)node * BUCKETS, model);
    place.model_by_match = reading(learned.model_match_map + (16 * (3 * longest + side) + shallow) * BUCKETS, model);
    inputs[MODEL_MAPS] = learned.stretch[value_of(place.model_by_node) >> 4];
    inputs[MODEL_MAPS + 1] = learned.stretch[value_of(place.model_by_match) >> 4];
    const int toward = is_below(tree, node, place.guess) ? 1 + bit_towards(tree, node, place.guess) : 0;
    const int32_t by_guess = 16 * (3 * place.confidence + toward) + shallow;
    const TextSets& sets = place.text_sets;
    place.chosen[0] = node;
    place.chosen[1] = nodes + BY_GUESS + by_guess;
    place.chosen[2] = nodes + sets.token;
    place.chosen[3] = nodes + sets.bracket;
    place.chosen[4] = nodes + sets.shape;
    place.chosen[5] = nodes + sets.place_from + (depth >= 4);
    place.chosen[6] = nodes + sets.field;
    place.chosen[7] = nodes + sets.column_from + longest;
    for (int i = 0; i < SETS; i++) place.logit[i] = mixture(weights(learned, place.chosen[i]), inputs, INPUTS);
    place.final_set[0] = FINAL_BY_MATCH + 16 * shallow + longest;
    place.final_set[1] = FINAL_BY_GUESS + by_guess;
    place.final_set[2] = sets.final_byte_from + shallow;
    place.final_set[3] = sets.final_shape;
    int32_t sum = FINALS / 2;
    for (int i = 0; i < FINALS; i++) {
        place.final_logit[i] = mixture(learned.final_weight + place.final_set[i] * SETS, place.logit, SETS);
        sum += place.final_logit[i];
    }
    const int32_t logit = sum >> 2;
    place.by_node = reading(learned.node_map + (int64_t)node * BUCKETS, logit);
    place.by_pair = reading(learned.pair_map + (int64_t)place.pair * BUCKETS, logit);
    const int32_t mixed = 2 * learned.squash[logit + MAX_LOGIT] + value_of(place.by_node) + value_of(place.by_pair);
    place.probability = (int32_t)clamped((mixed + 2) >> 2, 1, 65535);
    place.row_choice[0] = ROW_BY_DEPTH + shallow;
    place.row_choice[1] = ROW_BY_MATCH + longest;
    place.row_choice[2] = ROW_BY_GUESS + 3 * place.confidence + toward;
    place.row_choice[3] = ROW_BY_CLASS + sets.last_class;
    place.row_choice[4] = ROW_BY_AGE + place.age;
}

// Moves a probability of 22 bits, above its 10-bit count, towards the bit: error * rate >> 16 from the error's upper and
// lower 11 bits, rate < 2^16.
INLINE uint32_t learnt(uint32_t entry, int bit, uint32_t max_updates, const int32_t* rates) {
    const uint32_t count = entry & 1023;
    const int32_t old = (int32_t)(entry >> 10), error = (bit << 22) - old, rate = rates[count];
    int32_t value = old + (((error >> 11) * rate + (((error & 2047) * rate) >> 11)) >> 5);
    value = value > 1024 ? value : 1024;
    value = value < (1 << 22) - 1024 ? value : (1 << 22) - 1024;
    return (uint32_t)value << 10 | (count < max_updates ? count + 1 : max_updates);
}

INLINE void learn_reading(const Reading& read, int bit) {  // 2^20 * 2^7 < 2^31
    const int32_t target = bit * ((1 << 20) - 1);
    read.entry[0] += ((target - read.entry[0]) * (128 - read.part)) >> 12;
    read.entry[1] += ((target - read.entry[1]) * read.part) >> 12;
}

// Everything that a place predicted with learns the bit.
INLINE void learn(const Mixer& m, Place& place, int bit) {
    const Learned& learned = m.learned;
    const int32_t target = bit << 16;
    for (int i = 0; i < SETS; i++) {
        int32_t* updates = learned.updates + place.chosen[i];
        const int32_t rate = 48 + (int32_t)(1248000u / (uint32_t)(1000 + *updates));
        *updates = (int32_t)smaller(*updates + 1, 65535);
        const int32_t error = target - learned.squash[place.logit[i] + MAX_LOGIT];
        train(weights(learned, place.chosen[i]), place.inputs, INPUTS, error, rate);
    }
    for (int i = 0; i < FINALS; i++) {
        const int32_t error = target - learned.squash[place.final_logit[i] + MAX_LOGIT];
        train(learned.final_weight + place.final_set[i] * SETS, place.logit, SETS, error, 128);
    }
    if (m.with_model) train(learned.output_weight, place.unit, UNITS, target - place.probability, 128);
    learn_reading(place.by_node, bit);
    learn_reading(place.by_pair, bit);
    learn_reading(place.model_by_node, bit);
    learn_reading(place.model_by_match, bit);
    for (int match = 0; match < MATCHES; match++) {
        if (!place.match_entry[match]) continue;
        uint32_t* entry = learned.match_map + match * MATCH_LENGTHS + place.match_entry[match];
        *entry = learnt(*entry, place.match_bit[match] == bit, 60, learned.rate);
    }
    for (int context = 0; context < CONTEXTS; context++) {
        uint32_t* entry = learned.state_map + context * 256 + place.state[context];
        const uint32_t value = learnt(*entry, bit, 255, learned.rate);
        *entry = place.state[context] ? value : *entry;
    }
    for (int context = 0; context < CONTEXTS; context++) {
        uint8_t* state = learned.blocks + (int64_t)place.block[context] * BLOCK_BYTES + place.slot;
        *state = learned.successor[2 * *state + bit];
    }
}

// Copies a decision, if anybody wants it and it is its turn.
INLINE void keep_sample(Samples* samples, const Place& place, int bit) {
    if (!samples || !samples->room || ++samples->passed < samples->stride) return;
    samples->passed = 0;
    samples->room--;
    memcpy(samples->sample, place.network_input, USED_NETWORK_INPUTS * sizeof *samples->sample);
    samples->sample += USED_NETWORK_INPUTS;
    for (int i = 0; i < CHOICES; i++) *samples->sample++ = (int16_t)place.row_choice[i];
    *samples->sample++ = (int16_t)bit;
}

}  // namespace

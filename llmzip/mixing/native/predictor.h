// Experts, mixing and learning for one binary decision of one row (docs/numerics.md sections 10.4, 10.7, 10.8); must not
// know the order of tokens, frames or the coder. Included once for each level of instructions (mixer.h).

namespace {

// One row of a group, from a prediction to its update.
struct Place {
    alignas(64) int32_t inputs[INPUTS];
    uint32_t hash[CONTEXTS], block[CONTEXTS];
    uint8_t check[CONTEXTS], state[CONTEXTS];
    int64_t row, expected[MATCHES];
    int32_t node, treelet, slot, leaf, byte, before;
    int32_t match_length[MATCHES], match_bit[MATCHES];
    int32_t* found_at[MATCHES];  // where the match models look for earlier tokens once the leaf is known
    int32_t chosen[SETS], logit[SETS], final_set, mixed, pair, bucket, part, probability;
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

// Asks the memory for what the prediction at the place's node will read.
INLINE void ask_ahead(const Learned& learned, Place& place) {
    place.pair = pair_of(learned, place);
    const char* set = (const char*)weights(learned, place.node);
    const char* by_node = (const char*)(learned.node_map + (int64_t)place.node * BUCKETS);
    const char* by_pair = (const char*)(learned.pair_map + (int64_t)place.pair * BUCKETS);
    for (int line = 0; line < INPUTS * 4; line += 64) __builtin_prefetch(set + line, 1);
    for (int line = 0; line < BUCKETS * 4; line += 64) {
        __builtin_prefetch(by_node + line, 1);
        __builtin_prefetch(by_pair + line, 1);
    }
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

// Sets the inputs of a match model; length: tokens that agree, or 0 if it expects nothing.
INLINE void set_match(const Learned& learned, Place& place, int match, int64_t length, int bit) {
    const int entry = (int)smaller(length, MATCH_LENGTHS - 1);
    int32_t* input = place.inputs + MATCH + 2 * match;
    place.match_length[match] = entry;
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

INLINE int64_t dot(const int32_t* weight, const int32_t* inputs) {
    int64_t sum = 0;
    for (int i = 0; i < INPUTS; i++) sum += (int64_t)weight[i] * inputs[i];
    return sum;
}

INLINE int32_t between(const int32_t* entry, int32_t part) {  // 2^20 * 2^7 < 2^31
    return (entry[0] * (128 - part) + entry[1] * part) >> 11;
}

// The probability of a one at the place's node, times 2^16.
INLINE void predict(const Learned& learned, const Tree& tree, Place& place, int model, int depth, int longest, int64_t shape) {
    int32_t* inputs = place.inputs;
    const int32_t nodes = (int32_t)tree.vocab - 1;
    place.slot = tree.slot[place.node];
    for (int context = 0; context < CONTEXTS; context++)
        place.state[context] = learned.blocks[(int64_t)place.block[context] * BLOCK_BYTES + place.slot];
    for (int context = 0; context < CONTEXTS; context++) {
        const int state = place.state[context];
        const int32_t logit = learned.stretch[learned.state_map[context * 256 + state] >> 20];
        inputs[context] = state ? logit : 0;
    }
    inputs[MODEL] = model;
    inputs[CONSTANT] = 256;
    place.chosen[0] = place.node;
    place.chosen[1] = nodes + (int32_t)(shape & (SHAPES - 1));
    place.chosen[2] = nodes + SHAPES + 2 * place.byte + (depth >= 4);
    place.final_set = (depth < 15 ? depth : 15) * 16 + longest;
    const int32_t* final_weight = learned.final_weight + place.final_set * SETS;
    int64_t total = 0;
    for (int i = 0; i < SETS; i++) {
        const int64_t sum = dot(weights(learned, place.chosen[i]), inputs);
        place.logit[i] = (int32_t)clamped((sum + 32768) >> 16, -MAX_LOGIT, MAX_LOGIT);
        total += (int64_t)final_weight[i] * place.logit[i];
    }
    const int32_t logit = (int32_t)clamped((total + 32768) >> 16, -MAX_LOGIT, MAX_LOGIT);
    const int32_t at = (int32_t)clamped(logit + 2048, 0, 4095);
    place.mixed = learned.squash[logit + MAX_LOGIT];
    place.bucket = at >> 7;
    place.part = at & 127;
    const int32_t by_node = between(learned.node_map + (int64_t)place.node * BUCKETS + place.bucket, place.part);
    const int32_t by_pair = between(learned.pair_map + (int64_t)place.pair * BUCKETS + place.bucket, place.part);
    place.probability = (int32_t)clamped((2 * place.mixed + by_node + by_pair + 2) >> 2, 1, 65535);
}

// |step| <= 65535 * 90: (step * input + 2^19) >> 20 from the step's upper and lower 12 bits, below 2^31 all the way.
INLINE void train(int32_t* weight, const int32_t* inputs, int32_t step) {
    const int32_t high = step >> 12, low = step & 4095;
    for (int i = 0; i < INPUTS; i++) {
        const int32_t value = weight[i] + ((high * inputs[i] + ((low * inputs[i] + (1 << 19)) >> 12)) >> 8);
        const int32_t above = value > -MAX_WEIGHT ? value : -MAX_WEIGHT;
        weight[i] = above < MAX_WEIGHT ? above : MAX_WEIGHT;
    }
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

INLINE void learn_final(int32_t* entry, int bit, int32_t part) {  // 2^20 * 2^7 < 2^31
    const int32_t target = bit * ((1 << 20) - 1);
    entry[0] += ((target - entry[0]) * (128 - part)) >> 13;
    entry[1] += ((target - entry[1]) * part) >> 13;
}

// Everything that a place predicted with learns the bit.
INLINE void learn(const Learned& learned, Place& place, int bit) {
    const int32_t target = bit << 16, error = target - place.mixed;
    int32_t* final_weight = learned.final_weight + place.final_set * SETS;
    for (int i = 0; i < SETS; i++) {
        const int32_t logit = place.logit[i];
        int32_t* updates = learned.updates + place.chosen[i];
        const int32_t rate = 12 + 78 * 100 / (100 + *updates);
        *updates = (int32_t)smaller(*updates + 1, 65535);
        train(weights(learned, place.chosen[i]), place.inputs, (target - learned.squash[logit + MAX_LOGIT]) * rate);
        const int64_t change = ((int64_t)error * 6 * logit + (1 << 19)) >> 20;
        final_weight[i] = (int32_t)clamped(final_weight[i] + change, -MAX_WEIGHT, MAX_WEIGHT);
    }
    learn_final(learned.node_map + (int64_t)place.node * BUCKETS + place.bucket, bit, place.part);
    learn_final(learned.pair_map + (int64_t)place.pair * BUCKETS + place.bucket, bit, place.part);
    for (int match = 0; match < MATCHES; match++) {
        if (!place.match_length[match]) continue;
        uint32_t* entry = learned.match_map + match * MATCH_LENGTHS + place.match_length[match];
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

}  // namespace

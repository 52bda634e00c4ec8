// What the mixer of a frame knows, in arrays that Python made (docs/numerics.md section 10); must not know how it is used.
// library.py has the same structures. Included once for each level of instructions (mixer.h).

#include <cstdint>
#include <cstring>

#define INLINE static inline __attribute__((always_inline))

namespace {

const int CONTEXTS = 36, MATCHES = 3, SETS = 8, FINALS = 4;  // of weights, one set of each group
const int USED_INPUTS = 46, INPUTS = 48;  // whole registers: the last two inputs are 0
const int MODEL = CONTEXTS, MATCH = MODEL + 1, CONSTANT = MATCH + 2 * MATCHES, MODEL_MAPS = CONSTANT + 1;
const int GROUP = 16;  // rows predicted together
const int BLOCK_BYTES = 16, MATCH_LENGTHS = 32, BUCKETS = 33, PAIRS = 1 << 16;
const int RING = 1 << 13, FIELDS = 64, NESTING = 64, MATCH_BITS = 20, MAX_MATCH = 60, SUM_LEAVES = 16;
const int MAX_LOGIT = 2815, MAX_WEIGHT = 1 << 29;

// Of the network: inputs in memory, whole registers, of which USED_NETWORK_INPUTS are not 0; units of each layer; rows that
// are chosen; and the largest outputs of the two layers.
const int NETWORK_INPUTS = 96, USED_NETWORK_INPUTS = 93, UNITS = 32, CHOICES = 5, MAX_HIDDEN = 8191, MAX_UNIT = 4095;

// Where what the network reads begins after the mixer's inputs, and the rows that it is given.
enum {
    NETWORK_SEEN = USED_INPUTS, NETWORK_LOGITS = NETWORK_SEEN + CONTEXTS, NETWORK_MIXED = NETWORK_LOGITS + SETS, NETWORK_MAPS
};
enum { ROW_BY_DEPTH = 0, ROW_BY_MATCH = 16, ROW_BY_GUESS = 32, ROW_BY_CLASS = 56, ROW_BY_AGE = 72 };

// Where the groups of weight sets after that of the nodes begin, and the groups of final sets.
enum { BY_GUESS = 0, BY_TOKEN = 384, BY_BRACKET = 1408, BY_SHAPE = 1488, BY_PLACE = 5584, BY_FIELD = 7632, BY_COLUMN = 8144 };
enum { FINAL_BY_MATCH = 0, FINAL_BY_GUESS = 256, FINAL_BY_BYTE = 640, FINAL_BY_SHAPE = 4736 };

// Places in a row's scalars; state.py names those that it sets.
enum {
    LENGTH, LINE, ABOVE, ABOVE_END, ABOVE2, ABOVE2_END, FIELD, FIELD_START, SEPARATOR, CONTENT, CONTENT_BEFORE, WORD,
    WORD1, WORD2, FIRST, KEY, SHAPE, BEGINNING, MARKS, DEPTH, TOKENS, SCALARS
};

struct Network {  // network.Network
    const int16_t *first, *second;
    const int32_t *row, *bias;
};

struct Learned {  // state.Learned
    uint8_t* blocks;
    uint32_t *state_map, *match_map;
    int32_t *weight, *updates, *final_weight, *output_weight, *node_map, *pair_map, *pair_row, *model_node_map, *model_match_map;
    const int32_t *squash, *stretch, *rate;
    const uint8_t *successor, *seen;
    const int16_t* seen_logit;
    int64_t last_block;
};

struct Texts {  // state.Texts
    int64_t* scalar;
    uint8_t* ring;
    int64_t *field_above, *field_here;
    uint8_t* bracket;
    int32_t *history, *follower, *pair_follower;
    const int64_t* token_start;
    const uint8_t* token_byte;
};

struct Tree {  // state.Shape
    const int32_t *child, *bounds, *treelet, *slot;
    const uint32_t* token;
    const int64_t* leaf;
    const uint16_t* block_of;
    const int32_t *log, *octave;
    int64_t rows, full_steps, long_rows, steps, vocab;
};

struct Matches {  // library.Walk makes them
    int64_t *pointer, *length;
    int32_t* found;
    int64_t base;  // what is found up to here belongs to another frame
};

struct Known {  // state.Known
    const int32_t* leaf;
    const int64_t* start;
    int16_t* logit;
    const int64_t* logit_start;
    int32_t* guess;  // as in Masses
};

struct Masses {  // state.Masses
    int32_t* mass;
    int64_t *block, *guess;  // guess: a leaf + 2^24 * confidence
};

struct Coder {  // coder.h
    uint64_t difference, range;
    const uint8_t* code;
    int64_t at, size;
};

// Where decisions are copied to, every `stride`-th of them: what the network read, its rows, and the bit.
struct Samples {  // library.Walk makes them
    int16_t* sample;
    int64_t room, stride, passed;
};

struct Mixer {
    Learned learned;
    Network network;
    Texts texts;
    Tree tree;
    Matches matches;
    Known known;
    Masses masses;
    Coder coder;
    Samples* samples;  // or none
    int64_t with_model;
};

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE bool is_below(const Tree& tree, int64_t node, int64_t leaf) {
    return tree.bounds[3 * node] <= leaf && leaf < tree.bounds[3 * node + 2];
}

// Which side of a node leads to a leaf below it.
INLINE int bit_towards(const Tree& tree, int64_t node, int64_t leaf) { return leaf >= tree.bounds[3 * node + 1]; }

INLINE int64_t clamped(int64_t x, int64_t low, int64_t high) { return smaller(larger(x, low), high); }

}  // namespace

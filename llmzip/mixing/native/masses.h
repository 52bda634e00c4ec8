// A model's masses as logits at the nodes of the tree (docs/numerics.md section 10.7, input 18); must not know texts,
// statistics or the coder. Included once for each level of instructions (mixer.h).

namespace {

const int AT_ONCE = 1024;         // masses that are looked at several times, in the innermost cache
const int CONFIDENCE_SHIFT = 24;   // leaves are below 2^20
const int CONFIDENCES[] = {7, 27, 74, 177, 308, 486, 767};
const int SMALL_VOCAB = 1 << 14;  // up to so many, masses are brought into the order of the leaves

// 256 ln(value), cut to the table's steps; value: 1 to 2^62.
INLINE int logarithm(const Tree& tree, uint64_t value) {
    const int octaves = 63 - __builtin_clzll(value);
    const uint64_t mantissa = octaves >= 10 ? value >> (octaves - 10) : value << (10 - octaves);
    return tree.octave[octaves] + tree.log[mantissa - 1024];
}

struct Row {  // of masses
    const int32_t* mass;
    const uint32_t* token;  // of each leaf, where masses are by token id; null where they are by leaf
    const int64_t* block;   // sums of the masses of the leaves before each block of SUM_LEAVES, and of all
};

INLINE int64_t blocks_of(const Tree& tree) { return (tree.vocab + SUM_LEAVES - 1) / SUM_LEAVES; }

INLINE bool is_small(const Tree& tree) { return tree.vocab <= SMALL_VOCAB; }

INLINE Row row_of(const Masses& masses, const Tree& tree, int64_t row) {
    const uint32_t* token = is_small(tree) ? nullptr : tree.token;
    return {masses.mass + row * tree.vocab, token, masses.block + row * (blocks_of(tree) + 1)};
}

// The sum of (mass + 1) of the leaves before this one, 0 <= leaf <= vocab.
INLINE int64_t sum_before(const Row& row, int64_t leaf) {
    const int64_t first = leaf / SUM_LEAVES * SUM_LEAVES;
    int64_t sum = 0;
    if (row.token) {
        for (int64_t i = first; i < leaf; i++) sum += row.mass[row.token[i]];
    } else {
        for (int64_t i = first; i < leaf; i++) sum += row.mass[i];
    }
    return row.block[leaf / SUM_LEAVES] + leaf + sum;
}

// The sums before a node's first leaf and at its end, which those of the node below share with it.
struct Span {
    int64_t first, end;
};

INLINE Span whole(const Row& row, const Tree& tree) { return {0, row.block[blocks_of(tree)] + tree.vocab}; }

// The logit at a node; `middle`: the sum before its side of ones.
INLINE int model_logit(const Row& row, const Tree& tree, int64_t node, const Span& span, int64_t* middle) {
    *middle = sum_before(row, tree.bounds[3 * node + 1]);
    const int logit = logarithm(tree, span.end - *middle) - logarithm(tree, *middle - span.first);
    return (int)clamped(logit, -MAX_LOGIT, MAX_LOGIT);
}

INLINE void descend(Span* span, int64_t middle, int bit) { (bit ? span->first : span->end) = middle; }

// Brings masses by token id into the order of the leaves, and sums up the blocks.
INLINE void sum_by_leaf(const int32_t* given, const Tree& tree, int32_t* mass, int64_t* block) {
    int64_t total = 0, i = 0;
    for (; i + SUM_LEAVES <= tree.vocab; i += SUM_LEAVES) {
        uint32_t sums[2] = {0, 0};  // 8 * 2^28 < 2^32
        for (int n = 0; n < SUM_LEAVES; n++) mass[i + n] = given[tree.token[i + n]];
        for (int n = 0; n < SUM_LEAVES / 2; n++) {
            sums[0] += mass[i + n];
            sums[1] += mass[i + n + SUM_LEAVES / 2];
        }
        *block++ = total;
        total += (int64_t)sums[0] + sums[1];
    }
    if (i < tree.vocab) *block++ = total;
    for (; i < tree.vocab; i++) total += mass[i] = given[tree.token[i]];
    *block = total;
}

// Sums up the blocks from masses by token id in one pass over them. Most masses are 0, neighbours often together.
INLINE void sum_by_id(const int32_t* given, const Tree& tree, int64_t* block) {
    const int64_t blocks = blocks_of(tree);
    memset(block, 0, sizeof *block * (blocks + 1));
    int64_t i = 0;
    for (; i + 16 <= tree.vocab; i += 16) {
        int32_t any = 0;
        for (int n = 0; n < 16; n++) any |= given[i + n];
        if (!any) continue;
        for (int n = 0; n < 16; n++) block[tree.block_of[i + n]] += given[i + n];
    }
    for (; i < tree.vocab; i++) block[tree.block_of[i]] += given[i];
    int64_t total = 0;
    for (int64_t n = 0; n <= blocks; n++) {
        const int64_t sum = block[n];
        block[n] = total;
        total += sum;
    }
}

// The leaf of the likeliest token, of several the one with the lowest id.
INLINE int64_t guess_of(const int32_t* given, const Tree& tree) {
    int32_t best = INT32_MIN;
    int64_t id = 0;
    for (int64_t first = 0; first < tree.vocab; first += AT_ONCE) {
        const int64_t end = smaller(first + AT_ONCE, tree.vocab);
        int32_t peak = given[first];
        for (int64_t i = first; i < end; i++) peak = given[i] > peak ? given[i] : peak;
        if (peak > best) {
            best = peak;
            id = first;
        }
    }
    while (given[id] != best) id++;
    return tree.leaf[id];
}

// How sure the model is: 0 to 7, by the largest of the masses with this sum.
INLINE int64_t confidence_of(const Tree& tree, int64_t sum, int32_t largest) {
    const int far = logarithm(tree, sum) - logarithm(tree, (uint64_t)largest + 1);
    int64_t level = 0;
    for (int limit : CONFIDENCES) level += far <= limit;
    return level;
}

// Takes one row of masses by token id. If it need not be kept, the row that is returned may be the given one.
INLINE Row take_row(const int32_t* given, const Tree& tree, const Masses& masses, int64_t row, bool is_kept) {
    Row taken = row_of(masses, tree, row);
    int32_t* mass = masses.mass + row * tree.vocab;
    int64_t* block = masses.block + row * (blocks_of(tree) + 1);
    const int64_t guess = guess_of(given, tree);
    if (is_small(tree)) {
        sum_by_leaf(given, tree, mass, block);
    } else {
        sum_by_id(given, tree, block);
        if (is_kept)
            memcpy(mass, given, sizeof *mass * tree.vocab);
        else
            taken.mass = given;
    }
    const int64_t confidence = confidence_of(tree, whole(taken, tree).end, given[tree.token[guess]]);
    masses.guess[row] = guess | confidence << CONFIDENCE_SHIFT;
    return taken;
}

}  // namespace

// A model's masses as logits at the nodes of the tree (docs/numerics.md section 10.7, input 18); must not know texts,
// statistics or the coder. Included once for each level of instructions (mixer.h).

namespace {

// 256 ln(value), cut to the table's steps; value: 1 to 2^62.
INLINE int logarithm(const Tree& tree, uint64_t value) {
    const int octaves = 63 - __builtin_clzll(value);
    const uint64_t mantissa = octaves >= 10 ? value >> (octaves - 10) : value << (10 - octaves);
    return tree.octave[octaves] + tree.log[mantissa - 1024];
}

struct Row {  // of Masses
    const int32_t* leaf;
    const int64_t* block;
    int64_t end;
};

INLINE Row row_of(const Masses& masses, const Tree& tree, int64_t row) {
    const int64_t blocks = (tree.vocab + SUM_LEAVES - 1) / SUM_LEAVES;
    return {masses.leaf + row * tree.vocab, masses.block + row * blocks, masses.end[row]};
}

// The sum of (mass + 1) of the leaves before this one, 0 <= leaf <= vocab.
INLINE int64_t sum_before(const Row& row, const Tree& tree, int64_t leaf) {
    if (leaf == tree.vocab) return row.end;
    const int64_t first = leaf / SUM_LEAVES * SUM_LEAVES;
    int64_t sum = 0;
    for (int64_t i = first; i < leaf; i++) sum += row.leaf[i];
    return row.block[leaf / SUM_LEAVES] + (leaf - first) + sum;
}

// The sums before a node's first leaf and at its end, which those of the node below share with it.
struct Span {
    int64_t first, end;
};

INLINE Span whole(const Row& row) { return {0, row.end}; }

// The logit at a node; `middle`: the sum before its side of ones.
INLINE int model_logit(const Row& row, const Tree& tree, int64_t node, const Span& span, int64_t* middle) {
    *middle = sum_before(row, tree, tree.bounds[3 * node + 1]);
    const int logit = logarithm(tree, span.end - *middle) - logarithm(tree, *middle - span.first);
    return (int)clamped(logit, -MAX_LOGIT, MAX_LOGIT);
}

INLINE void descend(Span* span, int64_t middle, int bit) { (bit ? span->first : span->end) = middle; }

// Takes one row of masses by token id, (vocab), into the order of the leaves.
INLINE void take_row(const int32_t* given, const Tree& tree, const Masses& masses, int64_t row) {
    int32_t* leaf = masses.leaf + row * tree.vocab;
    int64_t* block = masses.block + row * ((tree.vocab + SUM_LEAVES - 1) / SUM_LEAVES);
    int64_t total = 0, i = 0;
    for (; i + SUM_LEAVES <= tree.vocab; i += SUM_LEAVES) {
        int64_t sum = 0;
        for (int n = 0; n < SUM_LEAVES; n++) leaf[i + n] = given[tree.token[i + n]];
        for (int n = 0; n < SUM_LEAVES; n++) sum += leaf[i + n];
        *block++ = total;
        total += sum + SUM_LEAVES;
    }
    if (i < tree.vocab) *block = total;
    for (; i < tree.vocab; i++) total += (leaf[i] = given[tree.token[i]]) + 1;
    masses.end[row] = total;
    int32_t peak = given[0];
    for (i = 0; i < tree.vocab; i++) peak = given[i] > peak ? given[i] : peak;
    for (i = 0; given[i] != peak;) i++;
    masses.guess[row] = tree.leaf[i];
}

}  // namespace

// The mixer, included once for each level of instructions: the file that does so defines NAME(x), the functions' names.

#include "state.h"
#include "text.h"
#include "contexts.h"
#include "masses.h"
#include "coder.h"
#include "network.h"
#include "predictor.h"
#include "walk.h"

// Keeps what a decoder needs of the masses of some rows that follow each other, (n, vocab) by token id.
extern "C" void NAME(take)(const Mixer* m, int64_t n, const int32_t* given, int64_t first_row) {
    for (int64_t i = 0; i < n; i++) take_row(given + i * m->tree.vocab, m->tree, m->masses, first_row + i, true);
}

// The model's logits on the paths of known tokens, and its guesses. `room`: for one row, nobody else's.
extern "C" void NAME(paths)(const Mixer* m, int64_t n, const int32_t* given, const int64_t* places, const Masses* room) {
    const Tree& tree = m->tree;
    for (int64_t i = 0; i < n; i++, given += tree.vocab) {
        const int64_t place = places[i], leaf = m->known.leaf[place];
        const Row row = take_row(given, tree, *room, 0, false);
        m->known.guess[place] = (int32_t)room->guess[0];
        Span span = whole(row, tree);
        int16_t* out = m->known.logit + m->known.logit_start[place];
        for (int64_t node = 0; node >= 0;) {
            int64_t middle;
            *out++ = (int16_t)model_logit(row, tree, node, span, &middle);
            const int bit = bit_towards(tree, node, leaf);
            descend(&span, middle, bit);
            node = tree.child[2 * node + bit];
        }
    }
}

// Decisions of the steps from `first` to `last`; returns how many.
extern "C" int64_t NAME(encode)(const Mixer* m, int64_t first, int64_t last, float* probability, int32_t* bits) {
    int64_t done = 0;
    Group group;
    for (int64_t step = first; step < last; step++) {
        const int64_t rows = active_rows(m->tree, step);
        for (group.first = 0; group.first < rows; group.first += GROUP) {
            group.size = smaller(GROUP, rows - group.first);
            done += encode_group(*m, group, step, probability + done, bits + done);
        }
    }
    return done;
}

extern "C" void NAME(begin)(Mixer* m) { begin(m->coder); }

// Decodes the next token of the rows from `first` to `last`, which takes groups as they are, and writes their ids to
// `ids`; 0 if no encoder wrote this. Other threads may `take` masses of other rows meanwhile.
extern "C" int NAME(decode)(Mixer* m, int64_t first, int64_t last, int64_t* ids) {
    Group group;
    for (group.first = first; group.first < last; group.first += GROUP) {
        group.size = smaller(GROUP, last - group.first);
        if (!decode_group(*m, group)) return 0;
        for (int at = 0; at < group.size; at++) *ids++ = m->tree.token[group.place[at].leaf];
    }
    return 1;
}

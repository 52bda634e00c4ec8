// Tokens coded by tables of frequencies alone (docs/numerics.md section 8): a TokenCoder and a Sink of lanes.h. The groups
// of all rows of a step come before any token.

#include <cstdint>
#include <cstring>

// intervals.py fills it in. groups: ids in groups of `group`, rounded up.
struct Intervals {
    // Of an instruction set: kernels.h.
    void (*group_bounds)(int64_t n, int64_t vocab, int64_t group, int64_t units, const int32_t* masses, int64_t* sums,
                         int64_t* bounds);
    void (*symbol_bounds)(int64_t n, int64_t vocab, int64_t group, int64_t units, const int32_t* masses,
                          const int64_t* sums, const int64_t* which, int64_t stretch, int64_t* out);
    // Decodes a symbol for each of n tables of bounds [n, symbols + 1]; 0 if no encoder wrote this.
    int (*decode)(void* range_coder, int64_t n, int64_t symbols, const int64_t* bounds, int32_t* found);
    void* range_coder;
    int64_t vocab, group, groups, units;
    int32_t* masses;  // [rows, vocab]
    int64_t* sums;    // [rows, groups + 1]
    int64_t* bounds;  // [rows, groups + 1]
    int64_t* which;   // [rows]: the group of each row's token
    int64_t* inside;  // [group + 1]
};

// What an encoder needs of the masses of known tokens.
struct Sums {
    // Of an instruction set: kernels.h.
    void (*sums)(int64_t n, int64_t vocab, int64_t group, const int32_t* masses, const int64_t* tokens, int64_t* out);
    int64_t vocab, group;
    const int64_t* tokens;  // [N], of the frame
    int64_t* out;           // [N, 6]
};

extern "C" {

void llmzip_intervals_add(const Sums* m, int64_t n, const int32_t* masses, const int64_t* places, void*) {
    for (int64_t i = 0; i < n; i++)
        m->sums(1, m->vocab, m->group, masses + i * m->vocab, m->tokens + places[i], m->out + 6 * places[i]);
}

void llmzip_intervals_take(Intervals* m, int64_t n, const int32_t* masses, int64_t first_row) {
    const int64_t stride = m->groups + 1;
    memcpy(m->masses + first_row * m->vocab, masses, sizeof(int32_t) * n * m->vocab);
    m->group_bounds(n, m->vocab, m->group, m->units, masses, m->sums + first_row * stride, m->bounds + first_row * stride);
}

int llmzip_intervals_begin(Intervals* m, int64_t first_row, int64_t last_row) {
    for (int64_t row = first_row; row < last_row; row++) {
        int32_t group;
        if (!m->decode(m->range_coder, 1, m->groups, m->bounds + row * (m->groups + 1), &group)) return 0;
        m->which[row] = group;
    }
    return 1;
}

int llmzip_intervals_decode(Intervals* m, int64_t first_row, int64_t last_row, int64_t* tokens) {
    for (int64_t row = first_row; row < last_row; row++) {
        int32_t place;
        m->symbol_bounds(1, m->vocab, m->group, m->units, m->masses + row * m->vocab, m->sums + row * (m->groups + 1),
                         m->which + row, 1, m->inside);
        if (!m->decode(m->range_coder, 1, m->group, m->inside, &place)) return 0;
        tokens[row - first_row] = m->which[row] * m->group + place;
    }
    return 1;
}

}  // extern "C"

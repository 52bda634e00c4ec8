// The exact forward pass for one instruction set. One source file for each includes this one and defines NAME(x), and
// LEVEL as 3 (AVX-512 with VNNI, and AMX), 2 (AVX-512 with VNNI) or 1 (AVX2).
//
// Rules (docs/numerics.md): each float operation rounds once, in the order of section 6; sums are sums of integers.
// Build with -ffp-contract=off and without -ffast-math. Nothing here allocates memory or knows Python.

#include "model.h"
#include "vectors.h"

#include "products.h"

#include "functions.h"
#include "rows.h"

#include "attention.h"
#include "stages.h"

#include "head.h"
#include "sums.h"

extern "C" {

// Takes rows x new tokens, at positions from `begin` on, through all layers, into room->x. Their keys and values go into
// the stores, one for each layer, from the store's slot on. cosines, sines: those of the positions, [new, turned] for
// each of the two rotary tables; turned: pairs of each table.
void NAME(forward)(const Model* m, int64_t rows, int64_t new_tokens, const int64_t* ids, int64_t begin,
                   const float* const* cosines, const float* const* sines, const int64_t* turned, const Store* stores,
                   const Room* room) {
    const int64_t n = rows * new_tokens;
    embed(n, new_tokens, m, ids, begin, room->x);
    norm(n, m, &m->layer[0].input_norm, &m->layer[0].qkv, room);
    for (int64_t number = 0; number < m->layers; number++) {
        const Layer *layer = m->layer + number, *next = number + 1 < m->layers ? layer + 1 : nullptr;
        const Store* cache = stores + number;
        const int64_t rope = layer->rope < 0 ? 0 : layer->rope;
        multiply(m, &layer->qkv, n, 0, layer->qkv.outputs, room);
        heads(rows, new_tokens, m, layer, cosines[rope], sines[rope], layer->rope < 0 ? 0 : turned[rope], cache, room);
        attention(rows, new_tokens, m, layer, cache, next ? cache + 1 : nullptr, room);
        multiply(m, &layer->out, n, 0, layer->out.outputs, room);
        add_norm(n, m, &layer->attention_post_norm, &layer->post_norm, &layer->gate_up, m->parallel, room);
        multiply(m, &layer->gate_up, n, 0, layer->gate_up.outputs, room);
        gate(n, m, layer, room);
        multiply(m, &layer->down, n, 0, layer->down.outputs, room);
        add_norm(n, m, &layer->mlp_post_norm, next ? &next->input_norm : nullptr, next ? &next->qkv : nullptr, false,
                 room);
    }
}

// Computes the masses after hidden states [n, hidden] into out[n, stride]; those after the V tokens are 0.
void NAME(masses)(const Model* m, int64_t n, const float* hidden, const Room* room, int64_t stride, int32_t* out) {
    head_masses(m, n, hidden, room, stride, out);
}

// Sums masses [n, V] into out[n, 6]: those before the token's group, before the token, before the next token, before
// the next group, all; and counts the ids that are likelier. group: ids of a group.
void NAME(sums)(int64_t n, int64_t vocab, int64_t group, const int32_t* masses, const int64_t* tokens, int64_t* out) {
    for (int64_t t = 0; t < n; t++) sums_around(vocab, group, masses + t * vocab, tokens[t], out + 6 * t);
}

// Computes sums and bounds, [n, groups + 1], of masses [n, V]; units: the sum of all frequencies, less V; 0 for tables by
// weights.
void NAME(group_bounds)(int64_t n, int64_t vocab, int64_t group, int64_t units, const int32_t* masses, int64_t* sums,
                        int64_t* bounds) {
    const int64_t stride = (vocab + group - 1) / group + 1;
    for (int64_t t = 0; t < n; t++)
        group_bounds(vocab, group, units, masses + t * vocab, sums + t * stride, bounds + t * stride);
}

// Computes out[n, group + 1], the bounds within the groups `which`, 0 <= which < groups.
void NAME(symbol_bounds)(int64_t n, int64_t vocab, int64_t group, int64_t units, const int32_t* masses,
                         const int64_t* sums, const int64_t* which, int64_t stretch, int64_t* out) {
    const int64_t stride = (vocab + group - 1) / group + 1;
    for (int64_t t = 0; t < n; t++, masses += vocab, sums += stride, out += group + 1) {
        if (units)
            symbol_bounds(vocab, group, units, masses, sums, which[t], stretch, out);
        else
            weighted_bounds(vocab, group, masses, which[t], out);
    }
}

}  // extern "C"

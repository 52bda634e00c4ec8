// The structures that the kernels get: addresses and sizes, which kernels.py mirrors and forward.py fills in.
//
// Sizes that are no multiple of 16 are padded: rows of hidden states, the two halves of an MLP, each head. Weights,
// scales, norms and biases of the padding are 0, so that its values are 0 and change no maximum and no sum; the inverse
// sizes are those of the model.

#pragma once

#include <cstdint>

// A matrix of int8 weights. packed: [outputs / 16, terms / 4, 16, 4]; sums: the sum of each output's weights times 128;
// scale: that of each output; bias: may be null. outputs is a multiple of 16, terms too, with AMX of 64.
struct Matrix {
    const int8_t* packed;
    const int32_t* sums;
    const float* scale;
    const float* bias;
    int64_t outputs, terms;
};

// weight and bias of a norm; both may be null.
struct Norm {
    const float* weight;
    const float* bias;
};

struct Layer {
    struct Norm input_norm, post_norm, attention_post_norm, mlp_post_norm;
    const float* qk_norm;  // [H + G, D], may be null
    struct Matrix qkv, out, gate_up, down;
    int64_t window;  // positions that a token sees, itself included; 0 for all
    int64_t rope;    // which of the two rotary tables; -1 for none
};

struct Model {
    int64_t hidden;                     // as the model has it: rows of embedding and positions are not padded
    int64_t width, mlp, dim;            // padded sizes of hidden states, MLP and heads
    int64_t heads, kv_heads, layers, vocab, query_max;
    int64_t planes;                     // of activations, 1 or 2
    int64_t centres;                    // whether norms subtract the mean
    int64_t activation;                 // an Activation
    int64_t gated, parallel;            // as in ExactConfig
    float eps, inverse_hidden, inverse_dim, inverse_query_max, attention_factor, log2e, gain;
    float gelu_first, gelu_third;       // factors of numerics.md section 6.5
    float attention_cap, attention_slope, logit_cap, logit_slope;  // C and 2/c of section 6.4; 0 without a cap
    const int8_t* embedding;            // [V, hidden]
    const float* embedding_scale;
    const int8_t* positions;            // [context, hidden], may be null
    const float* positions_scale;
    struct Norm final_norm;
    const int32_t* octave;              // B of section 3
    int64_t floor_bits;                 // c of section 6.7
    const float* normal;                // N of section 3 times 2^-24, then 0; null unless the activation needs it
    struct Matrix head;
    const struct Layer* layer;
};

enum Activation { SILU, GELU, GELU_TANH };  // in the order of config.ACTIVATIONS

// The cache of a layer, for some rows: keys in blocks of 16 positions, [rows, G, blocks, D / 2, 16, 2] int8 for AVX2,
// [rows, G, blocks, D / 4, 16, 4] for AVX-512; values [rows, G, slots / 4, D, 4] int8; scales [rows, G, slots]; peak
// [rows, G, slots], the largest value scale since the context began, up to that of the slot. New tokens continue from
// the entry before their own; at slot 0 a context begins.
struct Store {
    int8_t* keys;
    int8_t* values;
    float* key_scale;
    float* value_scale;
    float* peak;
    int64_t slots;  // a multiple of 16
    int64_t slot;   // of the first new token
};

// Buffers of a thread, for n tokens, n a multiple of 32.
struct Room {
    float* x;            // [n, width]
    float* y;            // [n, widest output], at least HEAD_OUTPUTS (head.h)
    void* lines;         // [n * planes, widest input], two bytes each
    float* scale;        // [n]
    float* peak;         // [n]
    float* row;          // [max(width, mlp, 4 H D) + 16]
    float* z;            // [4, slots + 32]
    uint8_t* weights;    // [4, 3, slots + 32]
    int16_t* queries;    // [n, H, D]; for AVX-512 their high and their low bytes, [n, H, 2, D]
    float* query_scale;  // [n, H]
    float* value_peak;   // [n, G]
};

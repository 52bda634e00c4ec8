// The structures that the kernels get: addresses and sizes, which kernels.py mirrors and forward.py fills in.

#pragma once

#include <cstdint>

// A matrix of int8 weights. packed: [outputs / 16, terms / 4, 16, 4]; sums: the sum of each output's weights times 128;
// scale: that of each output. Outputs are padded with zeros to a multiple of 16; terms are a multiple of 4.
struct Matrix {
    const int8_t* packed;
    const int32_t* sums;
    const float* scale;
    int64_t outputs, terms;
};

struct Layer {
    const float* input_norm;
    const float* post_norm;
    const float* qkv_bias;  // may be null
    const float* qk_norm;   // [H + G, D], may be null
    struct Matrix qkv, out, gate_up, down;
    int64_t window;  // positions that a token sees, itself included; 0 for all
    int64_t rope;    // which of the two rotary tables; -1 for none
};

struct Model {
    int64_t hidden, mlp, heads, kv_heads, dim, layers, vocab, query_max;
    float eps, inverse_hidden, inverse_dim, inverse_query_max, attention_factor, log2e, gain;
    const int8_t* embedding;  // [V, hidden]
    const float* embedding_scale;
    const float* final_norm;
    const int32_t* exp2;      // the table of masses (numerics.md section 6.7); that of section 3, and times 2^-20
    const float* exp2_steps;
    const float* exp2_unit;
    int64_t exp2_last;        // index of the last entry of `exp2`
    struct Matrix head;
    const struct Layer* layer;
};

// The cache of a layer, for some rows: keys [rows, G, blocks, D / 2, 16, 2] int8, positions in blocks of 16; values
// [rows, G, slots / 4, D, 4] int8; scales [rows, G, slots]; peak [rows, G], the largest value scale so far.
struct Store {
    int8_t* keys;
    int8_t* values;
    float* key_scale;
    float* value_scale;
    float* peak;
    int64_t slots;  // a multiple of 16
    int64_t slot;   // of the first new token
};

// Buffers of a thread, for n tokens, n a multiple of 32. W is the widest output, padded to a multiple of 16.
struct Room {
    float* x;            // [n, hidden]
    int32_t* sums;       // [n, W]
    int8_t* q;           // [n, widest input]
    void* shifted;       // [n, widest input], two bytes each
    float* scale;        // [n]
    float* scale2;       // [n]
    float* row;          // [max(W, 4 H D) + 16]
    float* z;            // [4, slots + 32]
    uint8_t* planes;     // [4, 3, slots + 32]
    int16_t* queries;    // [n, H, D]
    float* query_scale;  // [n, H]
    float* value_peak;   // [n, G]
};

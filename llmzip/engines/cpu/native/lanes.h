// The structures that lanes.py fills in for lanes.cpp: a frame's rows on their way through the model, and who codes them.

#pragma once

#include "model.h"

const int64_t MAX_TOKENS = 128;  // that go through the layers together; forward.py allocates buffers for so many
const int64_t MAX_GUESSES = 7;   // tokens of a row that are guessed at once

typedef void (*Forward)(const Model* m, int64_t rows, int64_t new_tokens, const int64_t* ids, int64_t begin,
                        const float* const* cosines, const float* const* sines, const int64_t* turned,
                        const Store* stores, const Room* room);
typedef void (*Masses)(const Model* m, int64_t n, const float* hidden, const Room* room, int64_t stride, int32_t* out);

// Rows of tokens in lockstep, the longest first, and the model's state after them. Input i of a row is what the model
// reads before it predicts the token of step i - skipped.
struct Rows {
    const Model* model;
    Forward forward;  // of an instruction set
    Masses masses;
    const float *cosines[2], *sines[2];  // rotary tables from position 0 on
    int64_t turned[2];                   // pairs in each
    const Store* stores;                 // [layers], for all rows; slot: that of position 0, negative if it is gone
    int64_t* inputs;                     // [rows, stride]
    int64_t stride, skipped;
    int64_t origin;  // the input that has position 0
    int64_t rows, full_steps, long_rows;
    int64_t first_place;  // of the first row's first token, among those that a sink gets
    int64_t vocab;        // columns of masses: the model's tokens, then byte tokens
    int64_t start_token;  // what the model is fed in place of a byte token
};

// What a thread's work took, in seconds.
struct Seconds {
    double layers, head, take, code;
};

// Buffers of a thread.
struct Desk {
    const struct Room* room;
    struct Store* stores;  // [layers]
    int64_t* ids;     // [MAX_TOKENS]
    int64_t* places;  // [MAX_TOKENS]
    float* hidden;    // [MAX_TOKENS, hidden]
    int32_t* masses;  // [mass_rows, vocab]
    int64_t mass_rows;
    void* of_sink;  // what the sink needs of a thread
    struct Seconds* seconds;
};

// Where masses of known tokens go.
struct Sink {
    void* context;
    // Takes masses [n, vocab] of the tokens at some places in the frame; several threads may call it at once.
    void (*add)(void* context, int64_t n, const int32_t* masses, const int64_t* places, void* of_thread);
};

// What decodes tokens from masses. Threads take turns in begin and decode; meanwhile others may call `take` for
// other rows.
struct TokenCoder {
    void* context;
    // Takes the masses [n, vocab] of the next tokens of some rows.
    void (*take)(void* context, int64_t n, const int32_t* masses, int64_t first_row);
    // What must be decoded of all rows before the token of any; null for nothing. 0 if the data are damaged.
    int (*begin)(void* context, int64_t first_row, int64_t last_row);
    // Decodes the next tokens of some rows; 0 if the data are damaged.
    int (*decode)(void* context, int64_t first_row, int64_t last_row, int64_t* tokens);
};

// What guesses the tokens that come next in a row, from those that did; for one thread at a time.
struct Guesser {
    const void* context;  // null for none
    void (*learn)(const void* context, int64_t row, int64_t token);
    // Guesses up to `count` tokens, and the chance of each if those before it are right; returns how many.
    int64_t (*guess)(const void* context, int64_t row, int64_t count, int64_t* tokens, float* chance);
    // How many guesses to read, from their chances, what passes of 1, 2 ... tokens cost, and the tokens per cost so far.
    int64_t (*worth)(int64_t guesses, const float* chance, const float* cost, float rate);
};

// Rows that go through the model together, on one thread: some of a lane, or all of some lanes. A part of one row may read
// guesses.
struct Part {
    int64_t first, last;            // rows
    int64_t first_lane, last_lane;  // those whose rows these are
    int64_t next;                   // step that is predicted next
    int64_t is_busy;                // whether a thread predicts
    int64_t guesses, right;         // tokens that are read after the known one; how many turned out right by now
    int64_t guess[MAX_GUESSES];
    double seconds;                 // that the last pass took
    int32_t* masses;  // [MAX_GUESSES + 1, vocab] after the known token and the guesses; null if it never guesses
};

// Rows that are coded in one go.
struct Lane {
    int64_t first, last;            // rows
    int64_t frame;                  // whose rows these are
    int64_t full_steps, long_last;  // steps of all rows; end of the rows that have one more, first ones
    int64_t coded;                  // steps that are done
    int64_t first_part, last_part;  // those that hold its rows
};

// Lanes that a coder decodes in turn.
struct Frame {
    struct TokenCoder coder;
    int64_t first_row;              // which the coder numbers 0
    int64_t first_lane, last_lane, steps;
    int64_t turn, step;             // the lane that is coded next, and its step
    int64_t has_begun;              // whether `begin` is done for all lanes of the step
    int64_t is_coding, has_failed;
};

// How passes of one row went, to choose how many guesses are worth their time.
struct Experience {
    double pass_seconds[MAX_GUESSES + 1];  // of a pass with so many guesses, smoothed; 0 where none was measured
    double tokens, seconds;                // that the last passes gave and took
    int64_t passes, read, right;           // passes in all, guesses that they read, those that were right
};

struct Decoding {
    struct Rows rows;
    struct Guesser guesser;
    struct Frame* frames;
    struct Lane* lanes;
    struct Part* parts;
    int64_t num_frames, num_parts;
    int64_t last_step;  // to decode up to
    int64_t max_step;   // steps that may be predicted: the cache has no room for more
    int64_t is_stopped;
    int64_t* tokens;    // [rows]
    int64_t max_guesses;
    struct Experience experience;
    void* sync;
};

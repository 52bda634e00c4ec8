// Takes rows of tokens through the model, on several threads and without Python in between: lanes.h. A lane's tokens are
// coded while other lanes are in the model. Must not know what codes them.

#include "lanes.h"

#include <cstdlib>
#include <cstring>
#include <ctime>

#include <pthread.h>

namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t steps_of(const Rows& r, int64_t row) { return r.full_steps + (row < r.long_rows); }

// The processor time of this thread in seconds: other work on the machine hardly changes what a pass takes of it.
double now() {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// Adds the time since `begin` to a sum of seconds, and returns the time.
double add_since(double begin, double* seconds) {
    const double time = now();
    *seconds += time - begin;
    return time;
}

// -- passes through the model ---------------------------------------------------------------------------------------

// The cache of a layer from a row on, for new tokens from a position on.
Store store_of(const Rows& r, int64_t layer, int64_t row, int64_t position) {
    Store store = r.stores[layer];
    const int64_t slots = row * r.model->kv_heads * store.slots, values = slots * r.model->dim;
    store.keys += values;
    store.values += values;
    store.key_scale += slots;
    store.value_scale += slots;
    store.peak += slots;
    store.slot += position;
    return store;
}

// Reads `new_tokens` inputs, from a step's on, of some rows; their hidden states are in the desk's room.
void pass(const Rows& r, const Desk& desk, int64_t first_row, int64_t rows, int64_t step, int64_t new_tokens) {
    const int64_t input = r.skipped + step, position = input - r.origin;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t t = 0; t < new_tokens; t++) {
            const int64_t id = r.inputs[(first_row + row) * r.stride + input + t];
            desk.ids[row * new_tokens + t] = (uint64_t)id < (uint64_t)r.model->vocab ? id : r.start_token;
        }
    for (int64_t layer = 0; layer < r.model->layers; layer++) desk.stores[layer] = store_of(r, layer, first_row, position);
    const float *cosines[2], *sines[2];
    for (int which = 0; which < 2; which++) {
        cosines[which] = r.cosines[which] + position * r.turned[which];
        sines[which] = r.sines[which] + position * r.turned[which];
    }
    const double begin = now();
    r.forward(r.model, rows, new_tokens, desk.ids, position, cosines, sines, r.turned, desk.stores, desk.room);
    add_since(begin, &desk.seconds->layers);
}

void keep_hidden(const Rows& r, const Desk& desk, int64_t token, int64_t place) {
    const int64_t hidden = r.model->hidden;
    memcpy(desk.hidden + place * hidden, desk.room->x + token * r.model->width, sizeof(float) * hidden);
}

void find_masses(const Rows& r, const Desk& desk, int64_t first, int64_t n, int32_t* out) {
    const double begin = now();
    r.masses(r.model, n, desk.hidden + first * r.model->hidden, desk.room, r.vocab, out);
    add_since(begin, &desk.seconds->head);
}

// Hands masses [n, vocab] of some rows to the coder of a frame.
void give(const Frame& frame, const Desk& desk, int64_t n, const int32_t* masses, int64_t first_row) {
    const double begin = now();
    frame.coder.take(frame.coder.context, n, masses, first_row - frame.first_row);
    add_since(begin, &desk.seconds->take);
}

// -- guesses ----------------------------------------------------------------------------------------------------------

// Moves an average of times towards a new one, less if that is longer: a thread may have been interrupted.
void smooth(double* average, double seconds) {
    if (*average <= 0)
        *average = seconds;
    else if (seconds < *average)
        *average += 0.2 * (seconds - *average);
    else
        *average += 0.05 * ((seconds < 2 * *average ? seconds : 2 * *average) - *average);
}

// What passes with 0, 1 ... guesses cost. Where none was measured it is what the nearest smaller one costs, so that it is
// tried where guesses tend to be right.
void find_costs(const Experience& experience, int64_t guesses, float* cost) {
    for (int64_t count = 0; count <= guesses; count++) {
        const double seconds = experience.pass_seconds[count];
        cost[count] = seconds > 0 || !count ? (float)seconds : cost[count - 1];
    }
}

// Predicts the token of a step in one row, and what would follow after some guesses.
void predict_ahead(const Decoding& d, const Desk& desk, Part& part, int64_t step) {
    const Rows& r = d.rows;
    int64_t* inputs = r.inputs + part.first * r.stride + r.skipped + step + 1;
    for (int64_t i = 0; i < part.guesses; i++) inputs[i] = part.guess[i];
    const double begin = now();
    pass(r, desk, part.first, 1, step, 1 + part.guesses);
    for (int64_t i = 0; i <= part.guesses; i++) keep_hidden(r, desk, i, i);
    find_masses(r, desk, 0, 1 + part.guesses, part.masses);
    part.seconds = now() - begin;
    give(d.frames[d.lanes[part.first_lane].frame], desk, 1, part.masses, part.first);
}

// Notes what the last pass of a part gave: the known token's successor, and one for each guess that was right.
void note_pass(Experience& experience, const Part& part) {
    const double memory = 0.98;
    smooth(&experience.pass_seconds[part.guesses], part.seconds);
    experience.tokens = memory * experience.tokens + (double)(1 + part.right);
    experience.seconds = memory * experience.seconds + experience.pass_seconds[part.guesses];
    experience.passes++;
    experience.read += part.guesses;
    experience.right += part.right;
}

// Goes on after the token of a step was coded in a part of one row: where it was guessed, the masses of the next one are
// known; else new guesses are made.
void follow(Decoding& d, const Frame& frame, const Lane& lane, Part& part, int64_t step, int64_t token) {
    d.guesser.learn(d.guesser.context, part.first, token);
    part.is_ahead = part.right < part.guesses && token == part.guess[part.right];
    if (part.is_ahead) {
        part.right++;
        const int32_t* masses = part.masses + part.right * d.rows.vocab;
        frame.coder.take(frame.coder.context, 1, masses, part.first - frame.first_row);
        return;
    }
    note_pass(d.experience, part);
    part.right = part.guesses = 0;
    const int64_t steps = lane.full_steps + (part.first < lane.long_last);
    const int64_t room = smaller(d.max_step, steps) - (step + 2);
    const int64_t count = smaller(d.max_guesses, room);
    if (count <= 0) return;
    float chance[MAX_GUESSES + 1], cost[MAX_GUESSES + 1];
    const int64_t guesses = d.guesser.guess(d.guesser.context, part.first, count, part.guess, chance);
    find_costs(d.experience, guesses, cost);
    part.guesses = d.guesser.worth(guesses, chance, cost, (float)(d.experience.tokens / d.experience.seconds));
}

// -- the order of work ------------------------------------------------------------------------------------------------

struct Sync {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int64_t changes;  // how often something was finished
};

// Where the rows of a lane end that have a token at a step.
int64_t end_of(const Lane& lane, int64_t step) {
    return step < lane.full_steps ? lane.last : step == lane.full_steps ? lane.long_last : lane.first;
}

// Hands masses [n, vocab] of rows from `first` on to the coders of a part's lanes, as far as the rows have a token.
void hand_out(const Decoding& d, const Desk& desk, const Part& part, int64_t step, int64_t first, int64_t n) {
    for (int64_t number = part.first_lane; number < part.last_lane; number++) {
        const Lane& lane = d.lanes[number];
        const int64_t begin = larger(first, lane.first), end = smaller(first + n, end_of(lane, step));
        if (begin < end)
            give(d.frames[lane.frame], desk, end - begin, desk.masses + (begin - first) * d.rows.vocab, begin);
    }
}

// Where the rows of a part end that have a token at a step; rows before may have none.
int64_t end_of(const Decoding& d, const Part& part, int64_t step) {
    int64_t end = part.first;
    for (int64_t number = part.first_lane; number < part.last_lane; number++)
        end = larger(end, smaller(part.last, end_of(d.lanes[number], step)));
    return end;
}

// Predicts the tokens of a step in a part's rows.
void predict_rows(const Decoding& d, const Desk& desk, const Part& part, int64_t step) {
    const int64_t last = end_of(d, part, step);
    for (int64_t first = part.first; first < last; first += MAX_TOKENS) {
        const int64_t rows = smaller(MAX_TOKENS, last - first);
        pass(d.rows, desk, first, rows, step, 1);
        for (int64_t row = 0; row < rows; row++) keep_hidden(d.rows, desk, row, row);
        for (int64_t row = 0; row < rows; row += desk.mass_rows) {
            const int64_t n = smaller(desk.mass_rows, rows - row);
            find_masses(d.rows, desk, row, n, desk.masses);
            hand_out(d, desk, part, step, first + row, n);
        }
    }
}

bool is_done(const Decoding& d, const Frame& frame) {
    return frame.has_failed || frame.step >= smaller(d.last_step, frame.steps);
}

// Whether a part has rows of a lane that have a token at a step. It may begin with other lanes, of the same frame too.
bool has_rows_of(const Part& part, const Lane& lane, int64_t step) {
    return larger(part.first, lane.first) < end_of(lane, step);
}

// Whether all rows of a lane that have a token at a step are predicted.
bool is_predicted(const Decoding& d, const Lane& lane, int64_t step) {
    for (int64_t n = lane.first_part; n < lane.last_part; n++)
        if (d.parts[n].next <= step && has_rows_of(d.parts[n], lane, step)) return false;
    return true;
}

bool all_done(const Decoding& d) {
    for (const Frame* frame = d.frames; frame < d.frames + d.num_frames; frame++)
        if (!is_done(d, *frame)) return false;
    return true;
}

// A frame whose lane in turn can be coded; null if there is none.
Frame* frame_to_code(const Decoding& d) {
    for (Frame* frame = d.frames; frame < d.frames + d.num_frames; frame++)
        if (!frame->is_coding && !is_done(d, *frame) && is_predicted(d, d.lanes[frame->turn], frame->step)) return frame;
    return nullptr;
}

// Decodes the tokens of a step in a lane; false if the data are damaged.
bool decode_lane(Decoding& d, const Frame& frame, const Lane& lane, int64_t step, int64_t end) {
    const Rows& r = d.rows;
    int64_t* tokens = d.tokens + lane.first;
    if (!frame.coder.decode(frame.coder.context, lane.first - frame.first_row, end - frame.first_row, tokens)) return false;
    for (int64_t row = lane.first; row < end; row++) {
        const int64_t token = tokens[row - lane.first];
        if (token < 0 || token >= r.vocab) return false;  // damaged data may name any
        r.inputs[row * r.stride + r.skipped + step + 1] = token;
    }
    for (int64_t n = lane.first_part; n < lane.last_part; n++) {
        Part& part = d.parts[n];
        if (part.masses && part.first < end) follow(d, frame, lane, part, step, tokens[part.first - lane.first]);
    }
    return true;
}

// Codes the lane of a frame whose turn it is. Called with the mutex, which is free while the coder works.
void code(Decoding& d, const Desk& desk, Sync& sync, Frame& frame) {
    Lane& lane = d.lanes[frame.turn];
    const TokenCoder& coder = frame.coder;
    const int64_t step = frame.step, end = end_of(lane, step);
    const bool begins = coder.begin && !frame.has_begun;
    frame.is_coding = 1;
    pthread_mutex_unlock(&sync.mutex);
    const double time = now();
    bool is_good = true;
    if (lane.first < end)
        is_good = begins ? coder.begin(coder.context, lane.first - frame.first_row, end - frame.first_row)
                         : decode_lane(d, frame, lane, step, end);
    add_since(time, &desk.seconds->code);
    pthread_mutex_lock(&sync.mutex);
    frame.is_coding = 0;
    if (!is_good) frame.has_failed = 1;
    if (!begins) {
        lane.coded = step + 1;
        for (int64_t n = lane.first_part; n < lane.last_part; n++)
            if (d.parts[n].masses && d.parts[n].is_ahead) d.parts[n].next = step + 2;
    }
    if (++frame.turn < frame.last_lane) return;
    frame.turn = frame.first_lane;
    if (coder.begin) frame.has_begun = !frame.has_begun;
    if (!frame.has_begun) frame.step++;
}

// Whether all that a part must read to predict its next step is known, and something is left to predict.
bool can_predict(const Decoding& d, const Part& part) {
    if (part.is_busy || part.next >= d.max_step) return false;
    bool is_wanted = false;
    for (int64_t number = part.first_lane; number < part.last_lane; number++) {
        const Lane& lane = d.lanes[number];
        if (d.frames[lane.frame].has_failed || !has_rows_of(part, lane, part.next)) continue;
        if (lane.coded < part.next) return false;
        is_wanted = true;
    }
    return is_wanted;
}

// A part that can go through the model: one that was predicted longest ago, so that lanes in turn come soon. Null if there
// is none.
Part* part_to_predict(const Decoding& d) {
    Part* best = nullptr;
    for (Part* part = d.parts; part < d.parts + d.num_parts; part++)
        if ((!best || part->next < best->next) && can_predict(d, *part)) best = part;
    return best;
}

// Takes a part through the model. Called with the mutex, which is free while the model works.
void predict(Decoding& d, const Desk& desk, Sync& sync, Part& part) {
    const int64_t step = part.next;
    part.is_busy = 1;
    pthread_mutex_unlock(&sync.mutex);
    if (part.masses)
        predict_ahead(d, desk, part, step);
    else
        predict_rows(d, desk, part, step);
    pthread_mutex_lock(&sync.mutex);
    part.is_busy = 0;
    part.next = step + 1;
}

const int64_t SPINS = 2000;  // some 20 us: what waking a thread takes

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Waits until another thread has finished something.
void wait_for_others(Sync& sync) {
    const int64_t before = sync.changes;
    pthread_mutex_unlock(&sync.mutex);
    for (int64_t n = 0; n < SPINS && __atomic_load_n(&sync.changes, __ATOMIC_RELAXED) == before; n++)
        relax();
    pthread_mutex_lock(&sync.mutex);
    while (sync.changes == before) pthread_cond_wait(&sync.changed, &sync.mutex);
}

void announce(Sync& sync) {
    __atomic_store_n(&sync.changes, sync.changes + 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&sync.changed);
}

}  // namespace

extern "C" {

// Size of the largest structure, which holds most of the others: lanes.py must have the same.
int64_t llmzip_lanes_size(void) { return sizeof(Decoding); }

// Reads the inputs of some steps of some rows, whose tokens are known, and hands the masses of the tokens to a sink.
void llmzip_lanes_read(const Rows* rows, const Sink* sink, const Desk* desk, int64_t first_row, int64_t last_row,
                       int64_t first_step, int64_t last_step) {
    const Rows& r = *rows;
    const int64_t new_tokens = smaller(MAX_TOKENS, last_step - first_step);
    const int64_t together = new_tokens < MAX_TOKENS ? MAX_TOKENS / new_tokens : 1;
    for (int64_t first = first_row; first < last_row; first += together) {
        const int64_t count = smaller(together, last_row - first);
        for (int64_t step = first_step; step < last_step; step += MAX_TOKENS) {
            const int64_t steps = smaller(MAX_TOKENS, last_step - step);
            pass(r, *desk, first, count, step, steps);
            int64_t n = 0;
            for (int64_t row = first; row < first + count; row++) {
                const int64_t start = row * r.full_steps + smaller(row, r.long_rows);
                for (int64_t t = 0; t < steps && step + t < steps_of(r, row); t++) {
                    keep_hidden(r, *desk, (row - first) * steps + t, n);
                    desk->places[n++] = r.first_place + start + step + t;
                }
            }
            for (int64_t done = 0; done < n; done += desk->mass_rows) {
                const int64_t part = smaller(desk->mass_rows, n - done);
                find_masses(r, *desk, done, part, desk->masses);
                const double begin = now();
                sink->add(sink->context, part, desk->masses, desk->places + done, desk->of_sink);
                add_since(begin, &desk->seconds->take);
            }
        }
    }
}

// Gets the decoding ready for threads; 0 if the system refuses.
int llmzip_lanes_open(Decoding* d) {
    Sync* sync = (Sync*)calloc(1, sizeof(Sync));
    if (!sync) return 0;
    pthread_mutex_init(&sync->mutex, nullptr);
    pthread_cond_init(&sync->changed, nullptr);
    d->sync = sync;
    return 1;
}

// Decodes up to d->last_step. Several threads may call it at once for one decoding, each with a desk of its own; each
// returns when nothing is left to do for it.
void llmzip_lanes_decode(Decoding* decoding, const Desk* desk) {
    Decoding& d = *decoding;
    Sync& sync = *(Sync*)d.sync;
    pthread_mutex_lock(&sync.mutex);
    while (!d.is_stopped && !all_done(d)) {
        if (Frame* frame = frame_to_code(d)) {
            code(d, *desk, sync, *frame);
        } else if (Part* part = part_to_predict(d)) {
            predict(d, *desk, sync, *part);
        } else {
            wait_for_others(sync);
            continue;
        }
        announce(sync);
    }
    pthread_mutex_unlock(&sync.mutex);
}

void llmzip_lanes_close(Decoding* d) {
    Sync* sync = (Sync*)d->sync;
    pthread_cond_destroy(&sync->changed);
    pthread_mutex_destroy(&sync->mutex);
    free(sync);
    d->sync = nullptr;
}

}  // extern "C"

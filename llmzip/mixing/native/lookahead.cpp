// Guesses of the tokens that come next in a row, for decoders that let the model read several tokens at once
// (lookahead.py); must not know models, the mixer or the coder. Whatever is guessed, the decoded text is the same.
//
// Each source guesses from the last few tokens: what came after them before, in any row, or what comes after them in a
// corpus. A source counts how often it was right, so that the best one for a place is known, and its chance.

#include <cstdint>
#include <cstring>

namespace {

const int ORDERS[] = {1, 2, 3, 4, 6, 10};  // tokens by which what came after them is found again
const int NUM_ORDERS = 6, AFTER_ONE = NUM_ORDERS, AFTER_TWO = AFTER_ONE + 1, SOURCES = AFTER_TWO + 1;
const int RECENT = 10;       // tokens of a row that are remembered, the last one at the end
const int MAX_GUESSES = 16;  // lookahead.py has the same
const int STATES = 16;       // of an entry: how often in a row it was right, up to 7, plus 8 once it was wrong
const int COMPANY = 3;       // no other source, the best other one disagrees, or agrees
const int MAX_COUNT = 100;   // chances are means over about so many of the last cases
const float AGREED_WEIGHT = 6, HOPELESS = 1 / 64.0f;

struct Entry {
    int32_t id;
    uint16_t check;  // 0 in empty ones
    uint16_t state;
};

struct Chance {
    float value;
    int32_t count;
};

// What comes after tokens in a corpus (followers.py): a token id, and above its 12 bits 16 times its chance.
struct Followers {
    const uint16_t* after_one;  // by the last token; null if nothing is known
    const int32_t* first;       // of the pairs that end in a token, by this token
    const uint16_t *before, *after_two;  // the pairs' other tokens, in rising order
};

struct Lookahead {  // lookahead.py has the same
    Entry* entry;
    int64_t last_entry, rows;
    int32_t* recent;  // (rows, RECENT)
    int32_t* known;   // (rows,): how many of them
    Chance* by_source;  // (SOURCES, STATES)
    Chance* by_company;  // (SOURCES, STATES, COMPANY)
    Followers followers;
};

struct Guess {
    int32_t id, source, state;
    float chance;
};

struct Place {  // what the sources say about one
    uint32_t hash[NUM_ORDERS];
    int orders, guesses;
    Guess guess[SOURCES];
    Guess* best;
    int company;
};

uint32_t mixed_hash(uint32_t state, uint32_t value) {
    const uint32_t product = (state ^ (value + 1)) * 0x2F0B4C47u;
    return product ^ (product >> 15);
}

Entry& entry_of(const Lookahead& l, uint32_t hash) { return l.entry[(hash * 0x9E3779B1u >> 8) & l.last_entry]; }

uint16_t check_of(uint32_t hash) { return hash & 0xFFFF ? hash & 0xFFFF : 1; }

void add(const Lookahead& l, Place& place, int source, int32_t id, int state) {
    place.guess[place.guesses++] = {id, source, state, l.by_source[source * STATES + state].value};
}

// What comes after the token `one` with `two` before it in the corpus; -1 if the pair is rare.
int after_two(const Followers& f, int32_t two, int32_t one) {
    int32_t low = f.first[one], high = f.first[one + 1];
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (f.before[middle] < two)
            low = middle + 1;
        else
            high = middle;
    }
    return low < f.first[one + 1] && f.before[low] == two ? f.after_two[low] : -1;
}

// Asks all sources about what comes after the `known` tokens before `end`.
void look(const Lookahead& l, const int32_t* end, int known, Place& place) {
    place.orders = place.guesses = 0;
    uint32_t hash = 0;
    for (int back = 1; back <= known && place.orders < NUM_ORDERS; back++) {
        hash = mixed_hash(hash, end[-back]);
        if (back == ORDERS[place.orders]) place.hash[place.orders++] = hash;
    }
    for (int order = 0; order < place.orders; order++) {
        const Entry& entry = entry_of(l, place.hash[order]);
        if (entry.check == check_of(place.hash[order])) add(l, place, order, entry.id, entry.state);
    }
    if (l.followers.after_one && known) {
        const int one = l.followers.after_one[end[-1]];
        add(l, place, AFTER_ONE, one & 0xFFF, one >> 12);
        const int two = known > 1 ? after_two(l.followers, end[-2], end[-1]) : -1;
        if (two >= 0) add(l, place, AFTER_TWO, two & 0xFFF, two >> 12);
    }
    place.best = nullptr;
    for (Guess* guess = place.guess; guess < place.guess + place.guesses; guess++)
        if (!place.best || guess->chance >= place.best->chance) place.best = guess;
    const Guess* other = nullptr;
    for (const Guess* guess = place.guess; guess < place.guess + place.guesses; guess++)
        if (guess != place.best && (!other || guess->chance > other->chance)) other = guess;
    place.company = !other ? 0 : other->id == place.best->id ? 2 : 1;
}

Chance& company_of(const Lookahead& l, const Place& place) {
    return l.by_company[(place.best->source * STATES + place.best->state) * COMPANY + place.company];
}

// The chance of the best guess, from how often such guesses were right in such company.
float chance_of(const Lookahead& l, const Place& place) {
    const Chance& company = company_of(l, place);
    const float weight = company.count / (company.count + AGREED_WEIGHT);
    return weight * company.value + (1 - weight) * place.best->chance;
}

void count(Chance& chance, bool is_right) {
    if (chance.count < MAX_COUNT) chance.count++;
    chance.value += (is_right - chance.value) / (chance.count + 1.5f);
}

void remember(const Lookahead& l, uint32_t hash, int32_t id) {
    Entry& entry = entry_of(l, hash);
    const int run = entry.state & 7;
    if (entry.check != check_of(hash))
        entry = {id, check_of(hash), 0};
    else if (entry.id == id)
        entry.state += run < 7;
    else if (run >= 2)
        entry.state = 8 | run / 2;
    else
        entry = {id, entry.check, 8};
}

}  // namespace

// Learns the next token of a row.
extern "C" void llmzip_lookahead_learn(const Lookahead* l, int64_t row, int64_t id) {
    int32_t *recent = l->recent + row * RECENT, &known = l->known[row];
    Place place;
    look(*l, recent + RECENT, known, place);
    if (place.best) count(company_of(*l, place), place.best->id == id);
    for (const Guess* guess = place.guess; guess < place.guess + place.guesses; guess++)
        count(l->by_source[guess->source * STATES + guess->state], guess->id == id);
    for (int order = 0; order < place.orders; order++) remember(*l, place.hash[order], (int32_t)id);
    memmove(recent, recent + 1, (RECENT - 1) * sizeof *recent);
    recent[RECENT - 1] = (int32_t)id;
    if (known < RECENT) known++;
}

// Guesses up to `wanted` next tokens of a row, at most MAX_GUESSES, and the chance of each if those before it are right;
// returns how many.
extern "C" int64_t llmzip_lookahead_guess(const Lookahead* l, int64_t row, int64_t wanted, int64_t* ids, float* chance) {
    int32_t tokens[RECENT + MAX_GUESSES];
    memcpy(tokens, l->recent + row * RECENT, RECENT * sizeof *tokens);
    int known = l->known[row];
    float all = 1;
    int64_t done = 0;
    for (; done < wanted && done < MAX_GUESSES; done++) {
        Place place;
        look(*l, tokens + RECENT + done, known, place);
        if (!place.best) break;
        chance[done] = chance_of(*l, place);
        all *= chance[done];
        if (all < HOPELESS) break;
        ids[done] = tokens[RECENT + done] = place.best->id;
        if (known < RECENT) known++;
    }
    return done;
}

// How many of the guesses are worth a pass that reads them too: the number that gives the most tokens beyond what the
// pass's cost would give otherwise. cost: of passes that read 1, 2 .. guesses + 1 tokens; rate: tokens per cost so far.
extern "C" int64_t llmzip_lookahead_worth(int64_t guesses, const float* chance, const float* cost, float rate) {
    float all = 1, tokens = 1, most = 1 - rate * cost[0];
    int64_t best = 0;
    for (int64_t i = 0; i < guesses; i++) {
        all *= chance[i];
        tokens += all;
        const float gain = tokens - rate * cost[i + 1];
        if (gain > most) {
            most = gain;
            best = i + 1;
        }
    }
    return best;
}

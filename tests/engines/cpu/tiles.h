// The tiles of AMX in plain C, for processors without them: included before native/amx.cpp, its intrinsics are replaced.
// Sizes are checked as a processor would: what is outside the configured tiles stops the process.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace emulated {

struct Tile {
    int rows, bytes;
    alignas(64) uint8_t data[16][64];
};

static thread_local Tile tiles[8];
static thread_local bool configured = false;

static inline void load_config(const void* from) {
    const uint8_t* config = (const uint8_t*)from;
    if (config[0] != 1) abort();
    for (int number = 0; number < 8; number++) {
        uint16_t bytes;
        memcpy(&bytes, config + 16 + 2 * number, 2);
        tiles[number].rows = config[48 + number];
        tiles[number].bytes = bytes;
        if (tiles[number].rows > 16 || bytes > 64) abort();
        memset(tiles[number].data, 0, sizeof tiles[number].data);
    }
    configured = true;
}

static inline void release() { configured = false; }

static inline void zero(int number) {
    if (!configured) abort();
    memset(tiles[number].data, 0, sizeof tiles[number].data);
}

static inline void load(int number, const void* from, int64_t stride) {
    if (!configured) abort();
    memset(tiles[number].data, 0, sizeof tiles[number].data);
    for (int r = 0; r < tiles[number].rows; r++)
        memcpy(tiles[number].data[r], (const uint8_t*)from + r * stride, tiles[number].bytes);
}

static inline void store(int number, void* to, int64_t stride) {
    if (!configured) abort();
    for (int r = 0; r < tiles[number].rows; r++)
        memcpy((uint8_t*)to + r * stride, tiles[number].data[r], tiles[number].bytes);
}

// Adds to 32-bit sums the products of groups of four signed bytes: rows of `a` by columns of `b`.
static inline void multiply(int sums, int a, int b) {
    if (!configured || tiles[a].bytes != 4 * tiles[b].rows || tiles[sums].rows != tiles[a].rows) abort();
    for (int r = 0; r < tiles[sums].rows; r++) {
        uint32_t sum[16];
        memcpy(sum, tiles[sums].data[r], sizeof sum);
        for (int k = 0; k < tiles[a].bytes / 4; k++)
            for (int i = 0; i < 4; i++) {
                const int x = (int8_t)tiles[a].data[r][4 * k + i];
                for (int column = 0; column < 16; column++)
                    sum[column] += (uint32_t)(x * (int8_t)tiles[b].data[k][4 * column + i]);
            }
        memcpy(tiles[sums].data[r], sum, tiles[sums].bytes);
    }
}

}  // namespace emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#define _tile_loadconfig emulated::load_config
#define _tile_release emulated::release
#define _tile_zero emulated::zero
#define _tile_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_dpbssd emulated::multiply

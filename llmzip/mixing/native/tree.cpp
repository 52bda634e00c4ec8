// The tree over a vocabulary (docs/numerics.md section 10.2), for tree.py; must not know probabilities.

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

const int TREELET_PLACES = 16;

// A token in the order of bytes: its first eight, the first one highest and zeros past the end, decide nearly always.
struct Entry {
    uint64_t head;
    int64_t id;
};

uint64_t head_of(const uint8_t* bytes, int64_t length) {
    uint64_t head = 0;
    for (int i = 0; i < 8; i++) head = head << 8 | (i < length ? bytes[i] : 0);
    return head;
}

// Where leaves first .. end - 1 are split: of the places where the fewest bytes are shared with the leaf before, the one
// that halves the weights best; the lower one of two.
int64_t split(const int64_t* sums, const int32_t* shared, int64_t first, int64_t end) {
    const int64_t twice = sums[first] + sums[end];
    int32_t fewest = INT32_MAX;
    for (int64_t m = first + 1; m < end; m++) fewest = std::min(fewest, shared[m]);
    int64_t best = -1, least = INT64_MAX;
    for (int64_t m = first + 1; m < end; m++) {
        if (shared[m] != fewest) continue;
        const int64_t far = 2 * sums[m] < twice ? twice - 2 * sums[m] : 2 * sums[m] - twice;
        if (far >= least) continue;
        best = m;
        least = far;
    }
    return best;
}

}  // namespace

// Sorts the tokens by their bytes, shorter ones first where one begins the other, equal ones by id; token: the id of each
// leaf. start, bytes: of the tokens, leaf_start, leaf_bytes: of the leaves, size + 1 and as many as they say; entries:
// room for `size`.
extern "C" void llmzip_tree_sort(int64_t size, const int64_t* start, const uint8_t* bytes, Entry* entries,
                                 int64_t* token, int64_t* leaf_start, uint8_t* leaf_bytes) {
    for (int64_t i = 0; i < size; i++) entries[i] = {head_of(bytes + start[i], start[i + 1] - start[i]), i};
    std::sort(entries, entries + size, [=](const Entry& a, const Entry& b) {
        if (a.head != b.head) return a.head < b.head;
        const int64_t one = start[a.id + 1] - start[a.id], other = start[b.id + 1] - start[b.id];
        const int order = memcmp(bytes + start[a.id], bytes + start[b.id], one < other ? one : other);
        return order ? order < 0 : one != other ? one < other : a.id < b.id;
    });
    leaf_start[0] = 0;
    for (int64_t i = 0; i < size; i++) {
        const int64_t id = token[i] = entries[i].id, length = start[id + 1] - start[id];
        memcpy(leaf_bytes + leaf_start[i], bytes + start[id], length);
        leaf_start[i + 1] = leaf_start[i] + length;
    }
}

// The number of bytes that each leaf shares with the one before, from the front; 0 for the first leaf.
extern "C" void llmzip_tree_share(int64_t size, const int64_t* start, const uint8_t* bytes, int32_t* shared) {
    shared[0] = 0;
    for (int64_t i = 1; i < size; i++) {
        const int64_t before = start[i] - start[i - 1], length = start[i + 1] - start[i];
        int64_t n = 0;
        while (n < before && n < length && bytes[start[i - 1] + n] == bytes[start[i] + n]) n++;
        shared[i] = (int32_t)n;
    }
}

// Builds the nodes from the sums of the weights before each leaf, size + 1, and from what leaves share. A node's numbers
// come after its parent's, so that parents write what their children begin with. level: of each node, 0 for the root;
// depth: of each leaf.
extern "C" void llmzip_tree_build(int64_t size, const int64_t* sums, const int32_t* shared, int32_t* child,
                                  int32_t* bounds, int32_t* treelet, int32_t* slot, int32_t* level, int32_t* depth) {
    bounds[0] = 0;
    bounds[2] = (int32_t)size;
    slot[0] = TREELET_PLACES;
    level[0] = 0;
    int32_t treelets = 0;
    for (int64_t node = 0; node < size - 1; node++) {
        const int64_t first = bounds[3 * node], end = bounds[3 * node + 2], middle = split(sums, shared, first, end);
        bounds[3 * node + 1] = (int32_t)middle;
        if (slot[node] >= TREELET_PLACES) {
            treelet[node] = treelets++;
            slot[node] = 1;
        }
        const int64_t begins[] = {first, middle, end};
        for (int bit = 0; bit < 2; bit++) {
            const int64_t begin = begins[bit], stop = begins[bit + 1];
            if (stop - begin == 1) {
                child[2 * node + bit] = (int32_t)(-1 - begin);
                depth[begin] = level[node] + 1;
                continue;
            }
            // The side of bit 0 comes next, with one node fewer than leaves.
            const int64_t below = bit ? node + (middle - first) : node + 1;
            child[2 * node + bit] = (int32_t)below;
            bounds[3 * below] = (int32_t)begin;
            bounds[3 * below + 2] = (int32_t)stop;
            treelet[below] = treelet[node];
            slot[below] = 2 * slot[node] + bit;
            level[below] = level[node] + 1;
        }
    }
}

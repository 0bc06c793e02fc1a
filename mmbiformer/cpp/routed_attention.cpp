// Routed attention on CPUs, forward and backward, in float32 or, with sums and softmax in float32,
// bfloat16.
//
// All is read and written in maps. A tile is some queries of a region: copies of what it attends to,
// the logits and their gradients stay in a core's cache, so that nothing of the kind reaches memory.
// Logits have a row for each query, as there are more keys: a vector is seldom filled up in vain.
// `cpp_backend.py` calls the functions at the end of this file. Letters: B, H, W, C as in a map
// (B, H, W, C); S partition factor, N heads, D channels of a head, T tokens of a region, K regions
// that a region attends to, R = K * T keys of a tile.
#include <algorithm>
#include <cstdlib>
#include <type_traits>

#include "products.h"

namespace {

// Logits of a tile, and keys and values of a head that are packed: so many that they stay in the
// cache of a server's core.
constexpr int64_t TILE_FLOATS = 1 << 15, PACKED = 1 << 19;

// A batch of maps of one size, cut into S x S regions: B, H, W, S, h, w.
struct Partition {
    int64_t batch, height, width, factor, region_height, region_width;

    int64_t tokens() const { return region_height * region_width; }
    // Rows and columns of regions with real tokens.
    int64_t rows() const { return (height + region_height - 1) / region_height; }
    int64_t columns() const { return (width + region_width - 1) / region_width; }
};

// What both passes get. Padding is `pad_key` and `pad_value` (C, ), and takes no part where
// `masks_padding`.
template <typename Number>
struct Problem {
    Partition queries, keys;
    Map<Number> query, key, value;
    int64_t heads, dim, value_dim, listed;  // N, D, D of values, K
    const int64_t *indices;                 // (B, S * S, K)
    const Number *pad_key, *pad_value;      // or null
    int64_t masks_padding;
    float scale;
};

// Gradients. The regions of each head of an image are cut into shares, each of which is one thread's
// and has sums of its own for keys, values and padding, zeros at first: maps that are `key_share`
// and `value_share` floats apart, and (shares, C) in float64, as these sums are long.
template <typename Number>
struct Gradients {
    Map<Number> out, query;
    Map<float> key, value;
    double *pad_key, *pad_value;  // or null
    int64_t shares, key_share, value_share;
};

// Where these are changed, the classes of the same names in `cpp_backend.py` are, too.
static_assert(sizeof(Problem<float>) == 264);
static_assert(sizeof(Gradients<float>) == 168);

enum Outcome { DONE = 0, NO_MEMORY = 1, NO_REGION = 2 };  // or both

// Goes through the tokens of a region of a map, from the first-th on and from a channel on.
template <typename Number>
class Tokens {
   public:
    Tokens(
        const Partition &p, const Map<Number> &map, int64_t image, int64_t row, int64_t column,
        int64_t first, int64_t channel
    )
        : width(p.region_width), token(map.token), next_row(map.row) {
        int64_t top = row * p.region_height, left = column * width;
        y = first / width, x = first % width;
        real_rows = p.height - top, real_columns = p.width - left;
        at = map.token_at(image, top + y, left) + channel;
    }

    // Where the token begins, null where it is padding; then goes on to the next.
    Number *next() {
        Number *found = y < real_rows && x < real_columns ? at + x * token : nullptr;
        if (++x == width) x = 0, y++, at += next_row;
        return found;
    }

   private:
    const int64_t width, token, next_row;
    int64_t y, x, real_rows, real_columns;
    Number *at;
};

// Memory for one tile after the other, and what is computed of them. All of one region come one
// after the other. Channels of a head are a multiple of LANES.
template <typename Number>
class Tiles {
   public:
    Tiles(const Problem<Number> &problem, bool has_gradients)
        : p(problem), differentiates(has_gradients), tokens(p.queries.tokens()),
          wide(p.keys.region_width), keys(p.listed * p.keys.tokens()),
          lanes((keys + LANES - 1) / LANES * LANES) {
        int64_t most = TILE_FLOATS / lanes > ROWS ? TILE_FLOATS / lanes : ROWS;
        per_region = (tokens + most - 1) / most;
        rows = (tokens + per_region - 1) / per_region;
        int64_t taken = keys * p.queries.rows() * p.queries.columns();
        packs = in_head() <= PACKED && p.keys.height * p.keys.width < taken;
        memory = (char *)std::aligned_alloc(64, lay_out(nullptr));
        if (memory) lay_out(memory);
    }
    ~Tiles() { std::free(memory); }

    // Takes a head of an image.
    void take_head(int64_t of_image, int64_t number) {
        image = of_image, head = number;
        Head<Number> in_maps = {of_head(p.key, p.dim), of_head(p.value, p.value_dim)};
        attended = packs ? packed_head(packed) : in_maps;
        if (packs)
            for_tokens(in_maps, attended, [](const Number *from, Number *to, int64_t dim) {
                std::copy_n(from, dim, to);
            });
    }

    // Takes the n-th region with queries, and what it attends to; false where a number is no
    // region's.
    bool take_region(int64_t n) {
        column = n % p.queries.columns(), row = n / p.queries.columns();
        int64_t regions = p.queries.factor * p.queries.factor;
        routed = p.indices + (image * regions + row * p.queries.factor + column) * p.listed;
        for (int64_t k = 0; k < p.listed; k++)
            if (routed[k] < 0 || routed[k] >= regions) return false;
        list(attended.keys, p.pad_key, p.dim, key_at);
        list(attended.values, p.pad_value, p.value_dim, value_at);
        if (p.masks_padding) hide_padding();
        copy_across(key_at, p.dim, key_across);
        if (differentiates) {
            copy(key_at, p.dim, key);
            copy_across(value_at, p.value_dim, value_across);
        } else {
            copy(value_at, p.value_dim, value);
        }
        return true;
    }

    // Takes the tile of the region.
    void take_tile(int64_t number) {
        first = number * rows, count = tokens - first < rows ? tokens - first : rows;
    }

    // Attention weights of the tile, (count, R), but for the factor `inverse` of each query.
    void weigh() {
        gather(p.query, p.dim, p.scale, query);
        multiply(count, lanes, p.dim, {query, p.dim, 1}, panels(key_across, p.dim), logits, lanes,
                 false);
        int64_t first_hidden = p.masks_padding ? 0 : keys / LANES * LANES;
        for (int64_t i = 0; i < count; i++)
            for (int64_t r = first_hidden; r < lanes; r += LANES) {
                float *at = logits + i * lanes + r;
                store(at, load(is_hidden + r) != 0 ? all(-__builtin_inff()) : load(at));
            }
        int64_t i = 0;
        for (; i + 4 <= count; i += 4) weigh_rows<4>(i);
        for (; i < count; i++) weigh_rows<1>(i);
    }

    // `grads`, the gradients of logits, from those of weights; makes `logits` the whole weights.
    void differentiate(const Map<Number> &of_out) {
        gather(of_out, p.value_dim, 1, grad_out);
        multiply(count, lanes, p.value_dim, {grad_out, p.value_dim, 1},
                 panels(value_across, p.value_dim), grads, lanes, false);
        int64_t i = 0;
        for (; i + 4 <= count; i += 4) differentiate_rows<4>(i);
        for (; i < count; i++) differentiate_rows<1>(i);
    }

    void write_out(const Map<Number> &map) { write(logits, value, p.value_dim, map, inverse, 1); }

    void write_grad_query(const Map<Number> &map) {
        write(grads, key, p.dim, map, nullptr, p.scale);
    }

    // Adds what the tile gives to the gradients of the region's keys and values.
    void add_grads() {
        bool is_begun = first > 0;
        multiply(keys, p.value_dim, count, {logits, 1, lanes}, whole(grad_out, p.value_dim),
                 grad_value, p.value_dim, is_begun);
        multiply(keys, p.dim, count, {grads, 1, lanes}, whole(query, p.dim), grad_key, p.dim,
                 is_begun);
    }

    // Begins to sum gradients of the head's keys and values.
    void begin_sums(const Gradients<Number> &to, int64_t share) {
        Map<float> keys_of = to.key, values_of = to.value;
        keys_of.at += share * to.key_share, values_of.at += share * to.value_share;
        sums_in_maps = {of_head(keys_of, p.dim), of_head(values_of, p.value_dim)};
        sums = packs ? packed_head(packed_sums) : sums_in_maps;
        if (packs) std::fill_n(packed_sums, in_head(), 0.f);
        int64_t before = share * p.heads + head;
        pad_key_sum = to.pad_key ? to.pad_key + before * p.dim : nullptr;
        pad_value_sum = to.pad_value ? to.pad_value + before * p.value_dim : nullptr;
    }

    void add_region_to_sums() {
        add_region(grad_key, p.dim, sums.keys, pad_key_sum);
        add_region(grad_value, p.value_dim, sums.values, pad_value_sum);
    }

    void end_sums() {
        if (packs) for_tokens(sums, sums_in_maps, add);
    }

    char *memory;        // null where there is none
    int64_t per_region;  // tiles

   private:
    // Keys and values of one head of one image, or sums of their gradients.
    template <typename Any>
    struct Head {
        Map<Any> keys, values;
    };

    // Where in memory everything is; how many bytes it needs.
    int64_t lay_out(char *at) {
        int64_t bytes = 0, widest = p.dim > p.value_dim ? p.dim : p.value_dim;
        int64_t panelled = (lanes + PANEL - 1) / PANEL * PANEL;
        auto take = [&](auto *&part, int64_t count) {
            if (at) part = (std::remove_reference_t<decltype(part)>)(at + bytes);
            bytes += (count * sizeof(*part) + 63) / 64 * 64;
        };
        take(key_at, lanes), take(value_at, lanes), take(is_hidden, lanes), take(zeros, widest);
        take(packed, packs ? in_head() : 0);
        take(query, rows * p.dim), take(key_across, panelled * p.dim), take(logits, rows * lanes);
        take(inverse, rows), take(results, rows * widest);
        if (differentiates) {
            take(key, keys * p.dim), take(value_across, panelled * p.value_dim);
            take(grad_out, rows * p.value_dim), take(grads, rows * lanes);
            take(packed_sums, packs ? in_head() : 0);
            take(grad_key, keys * p.dim), take(grad_value, keys * p.value_dim);
        } else {
            take(value, keys * p.value_dim);
        }
        if (at) {
            std::fill_n(zeros, widest, Number{});
            for (int64_t r = 0; r < lanes; r++)
                key_at[r] = value_at[r] = zeros, is_hidden[r] = r >= keys;
        }
        return bytes;
    }

    template <typename Any>
    Map<Any> of_head(Map<Any> map, int64_t dim) const {
        map.at = map.token_at(image, 0, 0) + head * dim;
        return map;
    }

    // Tokens of a head, side by side: in maps they lie so far apart that they share few sets of a
    // cache.
    template <typename Any>
    Head<Any> packed_head(Any *at) const {
        int64_t token = p.dim + p.value_dim, row_of = p.keys.width * token;
        return {{at, 0, row_of, token}, {at + p.dim, 0, row_of, token}};
    }

    int64_t in_head() const { return p.keys.height * p.keys.width * (p.dim + p.value_dim); }

    // Calls work(from, to, numbers) for all keys and values of a head.
    template <typename Any, typename Work>
    void for_tokens(const Head<Any> &from, const Head<Any> &to, Work work) const {
        for (int64_t y = 0; y < p.keys.height; y++)
            for (int64_t x = 0; x < p.keys.width; x++) {
                work(from.keys.token_at(0, y, x), to.keys.token_at(0, y, x), p.dim);
                work(from.values.token_at(0, y, x), to.values.token_at(0, y, x), p.value_dim);
            }
    }

    static void add(const float *from, float *to, int64_t numbers) {
        for (int64_t i = 0; i < numbers; i += LANES) store(to + i, load(to + i) + load(from + i));
    }

    // Calls work(r, at, real) for all rows of the listed regions, of `wide` keys each: which of the
    // region's keys is the first, where it begins in a head's map, and how many are no padding.
    template <typename Any, typename Work>
    void for_rows(const Map<Any> &map, Work work) const {
        const Partition &keys_of = p.keys;
        int64_t high = keys_of.region_height, r = 0;
        for (int64_t k = 0; k < p.listed; k++) {
            int64_t top = routed[k] / keys_of.factor * high;
            int64_t left = routed[k] % keys_of.factor * wide;
            int64_t real = std::clamp<int64_t>(keys_of.width - left, 0, wide);
            for (int64_t y = top; y < top + high; y++, r += wide)
                work(r, map.token_at(0, y, left), y < keys_of.height ? real : 0);
        }
    }

    // Where each of the region's keys or values begins.
    void list(const Map<Number> &map, const Number *pad, int64_t dim, const Number **begin) const {
        pad = pad ? pad + head * dim : zeros;
        for_rows(map, [&](int64_t r, const Number *at, int64_t real) {
            for (int64_t x = 0; x < wide; x++) begin[r + x] = x < real ? at + x * map.token : pad;
        });
    }

    // Which keys take no part: padding, and what is there to fill up vectors.
    void hide_padding() {
        for_rows(attended.keys, [&](int64_t r, const Number *, int64_t real) {
            for (int64_t x = 0; x < wide; x++) is_hidden[r + x] = x >= real;
        });
    }

    void copy(const Number *const *begin, int64_t dim, float *to) const {
        for (int64_t r = 0; r < keys; r++, to += dim)
            for (int64_t d = 0; d < dim; d += LANES) store(to + d, load(begin[r] + d));
    }

    // Transposed, (dim, R) in panels.
    void copy_across(const Number *const *begin, int64_t dim, float *to) const {
        for (int64_t r = 0; r < lanes; r += LANES)
            for (int64_t d = 0; d < dim; d += LANES) {
                Vector block[LANES];
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) block[i] = load(begin[r + i] + d);
                transpose(block);
                float *at = to + r / PANEL * PANEL * dim + d * PANEL + r % PANEL;
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) store(at + i * PANEL, block[i]);
            }
    }

    static Panels panels(const float *at, int64_t depth) { return {at, PANEL, depth * PANEL}; }
    static Panels whole(const float *at, int64_t columns) { return {at, columns, PANEL}; }

    Tokens<Number> of_tile(const Map<Number> &map, int64_t dim) const {
        return {p.queries, map, image, row, column, first, head * dim};
    }

    // The tile of a map, times a factor; zeros where it is padding.
    void gather(const Map<Number> &map, int64_t dim, float factor, float *to) const {
        Tokens<Number> tokens_of = of_tile(map, dim);
        for (int64_t i = 0; i < count; i++, to += dim) {
            const Number *x = tokens_of.next();
            for (int64_t d = 0; d < dim; d += LANES)
                store(to + d, x ? load(x + d) * factor : Vector{});
        }
    }

    // Weights (count, R) times keys or values; to a map, times a factor for each query or one for
    // all.
    void write(
        const float *weights, const float *right, int64_t dim, const Map<Number> &map,
        const float *factors, float factor
    ) {
        multiply(count, dim, keys, {weights, lanes, 1}, whole(right, dim), results, dim, false);
        Tokens<Number> tokens_of = of_tile(map, dim);
        for (int64_t i = 0; i < count; i++)
            if (Number *to = tokens_of.next())
                for (int64_t d = 0; d < dim; d += LANES)
                    store(
                        to + d,
                        load(results + i * dim + d) * (factors ? factors[i] : factor)
                    );
    }

    void add_region(const float *grad, int64_t dim, const Map<float> &to, double *pads) const {
        for_rows(to, [&](int64_t r, float *at, int64_t real) {
            const float *from = grad + r * dim;
            for (int64_t x = 0; x < real; x++, from += dim) add(from, at + x * to.token, dim);
            for (int64_t x = real; x < wide && pads; x++, from += dim)
                for (int64_t d = 0; d < dim; d++) pads[d] += from[d];
        });
    }

    // Softmax over the keys, without its division, for so many queries from the i-th on.
    template <int queries>
    void weigh_rows(int64_t i) {
        float *at = logits + i * lanes;
        Vector largest[queries], total[queries] = {};
        for (int j = 0; j < queries; j++) largest[j] = load(at + j * lanes);
        for (int64_t r = LANES; r < lanes; r += LANES)
            for (int j = 0; j < queries; j++)
                largest[j] = larger(largest[j], load(at + j * lanes + r));
        for (int j = 0; j < queries; j++) largest[j] = across<larger>(largest[j]);
        for (int64_t r = 0; r < lanes; r += LANES)
            for (int j = 0; j < queries; j++) {
                Vector weight = exp_of(load(at + j * lanes + r) - largest[j]);
                store(at + j * lanes + r, weight);
                total[j] += weight;
            }
        for (int j = 0; j < queries; j++) inverse[i + j] = 1 / across<sum>(total[j])[0];
    }

    // The same for the gradient of softmax.
    template <int queries>
    void differentiate_rows(int64_t i) {
        float *at = logits + i * lanes, *grad = grads + i * lanes;
        Vector total[queries] = {};
        for (int64_t r = 0; r < lanes; r += LANES)
            for (int j = 0; j < queries; j++) {
                Vector weight = load(at + j * lanes + r) * inverse[i + j];
                store(at + j * lanes + r, weight);
                total[j] += weight * load(grad + j * lanes + r);
            }
        for (int j = 0; j < queries; j++) total[j] = across<sum>(total[j]);
        for (int64_t r = 0; r < lanes; r += LANES)
            for (int j = 0; j < queries; j++) {
                float *to = grad + j * lanes + r;
                store(to, load(at + j * lanes + r) * (load(to) - total[j]));
            }
    }

    const Problem<Number> &p;
    const bool differentiates;
    const int64_t tokens, wide, keys, lanes;  // T, w of keys, R, R up to whole vectors
    int64_t rows;                             // most queries of a tile
    bool packs;
    int64_t head, image, row, column, first, count;
    const int64_t *routed;
    Head<Number> attended;
    Head<float> sums, sums_in_maps;
    double *pad_key_sum, *pad_value_sum;  // or null
    const Number **key_at, **value_at;
    float *is_hidden;  // (R, ), 0 or 1
    Number *packed, *zeros;
    float *packed_sums;
    // (rows, D), (D, R), (R, D), (rows, R), (rows, ), (rows, D), then likewise of gradients.
    float *query, *key_across, *value, *logits, *inverse, *results;
    float *key, *value_across, *grad_out, *grads, *grad_key, *grad_value;
};

template <typename Number>
int forward(const Problem<Number> &p, const Map<Number> &out, int threads) {
    int64_t regions = p.queries.rows() * p.queries.columns();
    int outcome = DONE;
#pragma omp parallel num_threads(threads) reduction(| : outcome)
    {
        Tiles<Number> tiles(p, false);
        if (!tiles.memory) outcome = NO_MEMORY;
        int64_t taken = -1;
#pragma omp for schedule(static)
        for (int64_t n = 0; n < p.queries.batch * p.heads * regions; n++) {
            int64_t head = n / regions;
            if (outcome) continue;
            if (head != taken) tiles.take_head(head / p.heads, head % p.heads);
            taken = head;
            if (!tiles.take_region(n % regions)) outcome = NO_REGION;
            for (int64_t i = 0; i < tiles.per_region && !outcome; i++) {
                tiles.take_tile(i);
                tiles.weigh();
                tiles.write_out(out);
            }
        }
    }
    return outcome;
}

template <typename Number>
int backward(const Problem<Number> &p, const Gradients<Number> &grads, int threads) {
    int64_t regions = p.queries.rows() * p.queries.columns();
    int64_t most = (regions + grads.shares - 1) / grads.shares;
    int outcome = DONE;
#pragma omp parallel num_threads(threads) reduction(| : outcome)
    {
        Tiles<Number> tiles(p, true);
        if (!tiles.memory) outcome = NO_MEMORY;
#pragma omp for schedule(dynamic) collapse(2)
        for (int64_t head = 0; head < p.heads; head++)
            for (int64_t share = 0; share < grads.shares; share++)
                for (int64_t image = 0; image < p.queries.batch && !outcome; image++) {
                    tiles.take_head(image, head);
                    tiles.begin_sums(grads, share);
                    int64_t end = std::min(regions, (share + 1) * most);
                    for (int64_t n = share * most; n < end && !outcome; n++) {
                        if (!tiles.take_region(n)) outcome = NO_REGION;
                        for (int64_t i = 0; i < tiles.per_region && !outcome; i++) {
                            tiles.take_tile(i);
                            tiles.weigh();
                            tiles.differentiate(grads.out);
                            tiles.add_grads();
                            tiles.write_grad_query(grads.query);
                        }
                        if (!outcome) tiles.add_region_to_sums();
                    }
                    tiles.end_sums();
                }
    }
    return outcome;
}

}  // namespace

extern "C" {

int forward_float32(const Problem<float> *problem, const Map<float> *out, int threads) {
    return forward(*problem, *out, threads);
}

int forward_bfloat16(const Problem<BFloat16> *problem, const Map<BFloat16> *out, int threads) {
    return forward(*problem, *out, threads);
}

int backward_float32(const Problem<float> *problem, const Gradients<float> *grads, int threads) {
    return backward(*problem, *grads, threads);
}

int backward_bfloat16(
    const Problem<BFloat16> *problem, const Gradients<BFloat16> *grads, int threads
) {
    return backward(*problem, *grads, threads);
}
}

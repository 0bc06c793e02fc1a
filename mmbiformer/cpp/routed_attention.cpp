// Routed attention on CPUs, forward and backward, in float32 or, with sums
// and softmax in float32, bfloat16.
//
// All is read and written in maps. A tile is some queries of a region: copies of what it attends to,
// the logits and their gradients stay in a core's cache, so that nothing of the kind reaches memory.
// Logits have queries along the lanes of vectors, so that sums over keys are sums of vectors.
// `cpp_backend.py` calls the functions at the end of this file. Letters: B, H, W, C as in a map
// (B, H, W, C); S partition factor, N heads, D channels of a head, T tokens of a region, K regions
// that a region attends to, R = K * T keys of a tile.
#include <cstdlib>

#include "vectors.h"

namespace {

// How many rows of two vectors a product holds in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 12;
#else
constexpr int ROWS = 6;
#endif
constexpr int64_t TILE_FLOATS = 1 << 15;  // of the logits: a quarter of the cache of a server's core
// So many numbers are added up before their sum is, in products and over keys: less rounding.
constexpr int64_t SUMMED = 32, KEYS_SUMMED = 8;

// A matrix whose element (i, j) is at[i * row + j * column].
struct Matrix {
    const float *at;
    int64_t row, column;
};

// c (rows, columns) = or += a (rows, depth) times b (depth, columns); b and c are row by row.
template <int rows, int vectors>
inline void multiply_in_registers(
    int64_t depth, Matrix a, const float *b, int64_t b_row, float *c, int64_t c_row, bool add
) {
    Vector sum[rows][vectors] = {};  // in registers, as all loops over them are unrolled
    for (int64_t k = 0; k < depth; k++, a.at += a.column, b += b_row)
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) sum[i][j] += a.at[i * a.row] * load(b + j * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) {
            float *to = c + i * c_row + j * LANES;
            store(to, add ? load(to) + sum[i][j] : sum[i][j]);
        }
}

template <int rows, int vectors>
inline void multiply_rest(
    int64_t rest, int64_t depth, Matrix a, const float *b, int64_t b_row, float *c, int64_t c_row,
    bool add
) {
    if constexpr (rows > 0) {
        if (rest == rows)
            multiply_in_registers<rows, vectors>(depth, a, b, b_row, c, c_row, add);
        else
            multiply_rest<rows - 1, vectors>(rest, depth, a, b, b_row, c, c_row, add);
    }
}

template <int vectors>
void multiply_columns(
    int64_t rows, int64_t depth, Matrix a, const float *b, int64_t b_row, float *c, int64_t c_row,
    bool add
) {
    for (; rows >= ROWS; rows -= ROWS, a.at += ROWS * a.row, c += ROWS * c_row)
        multiply_in_registers<ROWS, vectors>(depth, a, b, b_row, c, c_row, add);
    multiply_rest<ROWS - 1, vectors>(rows, depth, a, b, b_row, c, c_row, add);
}

template <int vectors>
void multiply_depth(
    int64_t rows, int64_t depth, Matrix a, const float *b, int64_t b_row, float *c, int64_t c_row,
    bool add
) {
    for (int64_t k = 0; k < depth; k += SUMMED) {
        int64_t part = depth - k < SUMMED ? depth - k : SUMMED;
        Matrix left = {a.at + k * a.column, a.row, a.column};
        multiply_columns<vectors>(
            rows, part, left, b + k * b_row, b_row, c, c_row, add || k > 0
        );
    }
}

// `columns` is a multiple of LANES.
void multiply(
    int64_t rows, int64_t columns, int64_t depth, Matrix a, const float *b, int64_t b_row, float *c,
    int64_t c_row, bool add
) {
    for (; columns >= 2 * LANES; columns -= 2 * LANES, b += 2 * LANES, c += 2 * LANES)
        multiply_depth<2>(rows, depth, a, b, b_row, c, c_row, add);
    if (columns) multiply_depth<1>(rows, depth, a, b, b_row, c, c_row, add);
}

// exp of numbers up to 0, to the last bit or two; 0 of those below -87. NaN stays NaN.
inline Vector exp_of(Vector x) {
    Integers is_zero = x < -87;
    x = is_zero ? all(-87) : x;
    // x = power * ln 2 + rest; adding 1.5 * 2^23 rounds to an integer, and ln 2 is in two parts.
    Vector power = (x * 1.44269504f + 12582912.f) - 12582912.f;
    Vector rest = (x - power * 0.693359375f) + power * 2.12194440e-4f;
    Vector y = all(1.f / 5040);
    constexpr float factors[] = {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1, 1};
    for (float factor : factors) y = y * rest + factor;
    Integers exponent = (__builtin_convertvector(power, Integers) + 127) << 23;
    return is_zero ? Vector{} : y * (Vector)exponent;
}

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
    const float *pad_key, *pad_value;       // or null
    int64_t masks_padding;
    float scale;
};

// Gradients. The regions of a head are cut into shares, each of which is one thread's and has sums
// of its own for keys, values and padding, zeros at first: maps that are `key_share` and
// `value_share` floats apart, and (shares, C) in float64, as these sums are long.
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

// `dim` is a multiple of LANES.
template <typename Number>
inline void copy(float *to, const Number *from, int64_t dim) {
    for (int64_t d = 0; d < dim; d += LANES) store(to + d, from ? load(from + d) : Vector{});
}

// Memory for one tile after the other, and what is computed of them. All of one region come one
// after the other.
template <typename Number>
class Tiles {
   public:
    Tiles(const Problem<Number> &problem, bool has_gradients)
        : p(problem), tokens(p.queries.tokens()), key_tokens(p.keys.tokens()),
          keys(p.listed * key_tokens) {
        int64_t most = TILE_FLOATS / keys / LANES * LANES;
        if (most < LANES) most = LANES;
        per_region = (tokens + most - 1) / most;
        width = ((tokens + per_region - 1) / per_region + LANES - 1) / LANES * LANES;
        int64_t dims = p.dim + p.value_dim, widest = p.dim > p.value_dim ? p.dim : p.value_dim;
        int64_t floats = (2 * p.dim + keys + 1 + widest) * width + keys * dims;
        if (has_gradients) floats += (2 * p.value_dim + keys) * width + keys * dims;
        memory = (float *)std::aligned_alloc(64, (floats * 4 + keys + 63) / 64 * 64);
        if (!memory) return;
        float *rest = memory;
        auto take = [&](int64_t count) { return rest += count, rest - count; };
        key = take(keys * p.dim), value = take(keys * p.value_dim);
        query = take(width * p.dim), query_across = take(width * p.dim);
        logits = take(keys * width), inverse = take(width), results = take(width * widest);
        if (has_gradients) {
            grad_out = take(width * p.value_dim), grad_out_across = take(width * p.value_dim);
            grads = take(keys * width);
            grad_key = take(keys * p.dim), grad_value = take(keys * p.value_dim);
        }
        is_padding = (bool *)rest;
    }
    ~Tiles() { std::free(memory); }

    int64_t regions_of_head() const {
        return p.queries.batch * p.queries.rows() * p.queries.columns();
    }

    // Takes the n-th region of those with queries, and what it attends to; false where a number is
    // no region's.
    bool take_region(int64_t of_head, int64_t n) {
        head = of_head;
        column = n % p.queries.columns(), row = n / p.queries.columns() % p.queries.rows();
        image = n / p.queries.columns() / p.queries.rows();
        int64_t regions = p.queries.factor * p.queries.factor;
        routed = p.indices + (image * regions + row * p.queries.factor + column) * p.listed;
        for (int64_t k = 0; k < p.listed; k++)
            if (routed[k] < 0 || routed[k] >= regions) return false;
        const float *pad_key = p.pad_key ? p.pad_key + head * p.dim : nullptr;
        const float *pad_value = p.pad_value ? p.pad_value + head * p.value_dim : nullptr;
        for_keys(p.key, p.dim, [&](int64_t r, const Number *x) {
            is_padding[r] = !x;
            float *to = key + r * p.dim;
            if (x)
                copy(to, x, p.dim);
            else
                copy(to, pad_key, p.dim);
        });
        for_keys(p.value, p.value_dim, [&](int64_t r, const Number *x) {
            float *to = value + r * p.value_dim;
            if (x)
                copy(to, x, p.value_dim);
            else
                copy(to, pad_value, p.value_dim);
        });
        return true;
    }

    // Takes the tile of the region.
    void take_tile(int64_t number) {
        first = number * width, count = tokens - first < width ? tokens - first : width;
    }

    // Attention weights of the tile, (R, width), but for the factor `inverse` of each query.
    void weigh() {
        gather(p.query, p.dim, p.scale, query, query_across);
        multiply(keys, width, p.dim, {key, p.dim, 1}, query_across, width, logits, width, false);
        if (p.masks_padding)
            for (int64_t r = 0; r < keys; r++)
                if (is_padding[r])
                    for (int64_t i = 0; i < width; i += LANES)
                        store(logits + r * width + i, all(-__builtin_inff()));
        int64_t i = 0;
        for (; i + 4 * LANES <= width; i += 4 * LANES) weigh_columns<4>(i);
        for (; i < width; i += LANES) weigh_columns<1>(i);
    }

    // `grads`, the gradients of logits, from those of weights; makes `logits` the whole weights.
    void differentiate(const Map<Number> &of_out) {
        gather(of_out, p.value_dim, 1, grad_out, grad_out_across);
        multiply(
            keys, width, p.value_dim, {value, p.value_dim, 1}, grad_out_across, width, grads, width,
            false
        );
        int64_t i = 0;
        for (; i + 4 * LANES <= width; i += 4 * LANES) differentiate_columns<4>(i);
        for (; i < width; i += LANES) differentiate_columns<1>(i);
    }

    void write_out(const Map<Number> &map) { write(logits, value, p.value_dim, map, inverse, 1); }

    void write_grad_query(const Map<Number> &map) {
        write(grads, key, p.dim, map, nullptr, p.scale);
    }

    // Adds what the tile gives to the gradients of the region's keys and values.
    void add_grads() {
        bool is_begun = first > 0;
        multiply(
            keys, p.value_dim, count, {logits, width, 1}, grad_out, p.value_dim, grad_value,
            p.value_dim, is_begun
        );
        multiply(
            keys, p.dim, count, {grads, width, 1}, query, p.dim, grad_key, p.dim, is_begun
        );
    }

    // Adds the gradients of the region's keys and values to those of all.
    void spread_grads(const Gradients<Number> &to, int64_t share) {
        spread(grad_key, p.dim, to.key, to.pad_key, share, to.key_share);
        spread(grad_value, p.value_dim, to.value, to.pad_value, share, to.value_share);
    }

    float *memory;       // null where there is none
    int64_t per_region;  // tiles

   private:
    // Calls work(r, where the r-th key of the head begins in a map, null where it is padding) for
    // all of them.
    template <typename Any, typename Work>
    void for_keys(const Map<Any> &map, int64_t dim, Work work) const {
        const Partition &keys_of = p.keys;
        int64_t high = keys_of.region_height, wide = keys_of.region_width, r = 0;
        for (int64_t k = 0; k < p.listed; k++) {
            int64_t top = routed[k] / keys_of.factor * high;
            int64_t left = routed[k] % keys_of.factor * wide;
            for (int64_t y = top; y < top + high; y++) {
                int64_t real = y < keys_of.height ? keys_of.width - left : 0;
                Any *at = map.token_at(image, y, left) + head * dim;
                for (int64_t x = 0; x < wide; x++, at += map.token)
                    work(r++, x < real ? at : nullptr);
            }
        }
    }

    Tokens<Number> of_tile(const Map<Number> &map, int64_t dim) const {
        return {p.queries, map, image, row, column, first, head * dim};
    }

    // The tile of a map, times a factor: (width, dim) and (dim, width), zeros where it is padding.
    void gather(
        const Map<Number> &map, int64_t dim, float factor, float *out, float *across
    ) const {
        Tokens<Number> tokens_of = of_tile(map, dim);
        for (int64_t i = 0; i < width; i++) {
            const Number *x = i < count ? tokens_of.next() : nullptr;
            for (int64_t d = 0; d < dim; d += LANES)
                store(out + i * dim + d, x ? load(x + d) * factor : Vector{});
        }
        for (int64_t i = 0; i < width; i += LANES)
            for (int64_t d = 0; d < dim; d++)
                for (int64_t j = 0; j < LANES; j++)
                    across[d * width + i + j] = out[(i + j) * dim + d];
    }

    // Weights (R, width), transposed, times keys or values; to a map, times a factor for each query
    // or one for all.
    void write(
        const float *weights, const float *right, int64_t dim, const Map<Number> &map,
        const float *factors, float factor
    ) {
        multiply(count, dim, keys, {weights, 1, width}, right, dim, results, dim, false);
        Tokens<Number> tokens_of = of_tile(map, dim);
        for (int64_t i = 0; i < count; i++)
            if (Number *to = tokens_of.next())
                for (int64_t d = 0; d < dim; d += LANES)
                    store(
                        to + d,
                        load(results + i * dim + d) * (factors ? factors[i] : factor)
                    );
    }

    void spread(
        const float *grad, int64_t dim, Map<float> map, double *pads, int64_t share,
        int64_t share_size
    ) const {
        map.at += share * share_size;
        if (pads) pads += (share * p.heads + head) * dim;
        for_keys(map, dim, [&](int64_t r, float *to) {
            const float *from = grad + r * dim;
            if (to)
                for (int64_t d = 0; d < dim; d += LANES)
                    store(to + d, load(to + d) + load(from + d));
            else if (pads)
                for (int64_t d = 0; d < dim; d++) pads[d] += from[d];
        });
    }

    // Softmax over the keys, without its division, of so many vectors of queries from the i-th on.
    template <int vectors>
    void weigh_columns(int64_t i) {
        Vector largest[vectors], sum[vectors] = {};
        for (int j = 0; j < vectors; j++) largest[j] = load(logits + i + j * LANES);
        for (int64_t k = 1; k < keys; k++)
            for (int j = 0; j < vectors; j++) {
                Vector x = load(logits + k * width + i + j * LANES);
                largest[j] = x > largest[j] ? x : largest[j];
            }
        for (int64_t k = 0; k < keys;) {
            Vector part[vectors] = {};
            for (int64_t end = k + KEYS_SUMMED < keys ? k + KEYS_SUMMED : keys; k < end; k++)
                for (int j = 0; j < vectors; j++) {
                    float *at = logits + k * width + i + j * LANES;
                    Vector weight = exp_of(load(at) - largest[j]);
                    store(at, weight);
                    part[j] += weight;
                }
            for (int j = 0; j < vectors; j++) sum[j] += part[j];
        }
        for (int j = 0; j < vectors; j++) store(inverse + i + j * LANES, 1 / sum[j]);
    }

    // The same for the gradient of softmax.
    template <int vectors>
    void differentiate_columns(int64_t i) {
        Vector sum[vectors] = {};
        for (int64_t k = 0; k < keys;) {
            Vector part[vectors] = {};
            for (int64_t end = k + KEYS_SUMMED < keys ? k + KEYS_SUMMED : keys; k < end; k++)
                for (int j = 0; j < vectors; j++) {
                    int64_t at = k * width + i + j * LANES;
                    Vector weight = load(logits + at) * load(inverse + i + j * LANES);
                    store(logits + at, weight);
                    part[j] += weight * load(grads + at);
                }
            for (int j = 0; j < vectors; j++) sum[j] += part[j];
        }
        for (int64_t k = 0; k < keys; k++)
            for (int j = 0; j < vectors; j++) {
                int64_t at = k * width + i + j * LANES;
                store(grads + at, load(logits + at) * (load(grads + at) - sum[j]));
            }
    }

    const Problem<Number> &p;
    const int64_t tokens, key_tokens, keys;  // T, T of keys, R
    int64_t width;                           // queries of a tile, up to a multiple of LANES
    int64_t head, image, row, column, first, count;
    const int64_t *routed;
    // (R, D), (width, D), (D, width), (R, width), (width, ), (width, D), then likewise of gradients.
    float *key{}, *value{}, *query{}, *query_across{}, *logits{}, *inverse{}, *results{};
    float *grad_out{}, *grad_out_across{}, *grads{}, *grad_key{}, *grad_value{};
    bool *is_padding{};  // (R, )
};

template <typename Number>
int forward(const Problem<Number> &p, const Map<Number> &out, int threads) {
    int outcome = DONE;
#pragma omp parallel num_threads(threads) reduction(| : outcome)
    {
        Tiles<Number> tiles(p, false);
        if (!tiles.memory) outcome = NO_MEMORY;
        int64_t regions = tiles.regions_of_head();
#pragma omp for schedule(static)
        for (int64_t n = 0; n < p.heads * regions; n++) {
            if (!outcome && !tiles.take_region(n / regions, n % regions)) outcome = NO_REGION;
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
    int outcome = DONE;
#pragma omp parallel num_threads(threads) reduction(| : outcome)
    {
        Tiles<Number> tiles(p, true);
        if (!tiles.memory) outcome = NO_MEMORY;
        int64_t regions = tiles.regions_of_head();
        int64_t most = (regions + grads.shares - 1) / grads.shares;
#pragma omp for schedule(dynamic) collapse(2)
        for (int64_t head = 0; head < p.heads; head++)
            for (int64_t share = 0; share < grads.shares; share++)
                for (int64_t n = share * most; n < (share + 1) * most && n < regions; n++) {
                    if (!outcome && !tiles.take_region(head, n)) outcome = NO_REGION;
                    if (outcome) break;
                    for (int64_t i = 0; i < tiles.per_region; i++) {
                        tiles.take_tile(i);
                        tiles.weigh();
                        tiles.differentiate(grads.out);
                        tiles.add_grads();
                        tiles.write_grad_query(grads.query);
                    }
                    tiles.spread_grads(grads, share);
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

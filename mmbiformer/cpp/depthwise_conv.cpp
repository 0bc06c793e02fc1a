// Depthwise convolutions of stride 1 that keep the size of a map, and their gradients, in
// float32 or, with sums in float32, bfloat16.
//
// Some columns of a row are computed together, for a vector of channels: what they read of the map
// is read once, and their sums stay in registers. `depthwise_conv.py` calls the functions at the end
// of this file. Letters: B, H, W, C as in a map (B, H, W, C); k rows and columns of the kernel.
#include <type_traits>

#include "vectors.h"

namespace {

constexpr int COLUMNS = 8;  // computed together
const float ZEROS[LANES] = {};

// A map (B, H, W, C) that is padded at its bottom and right to so many rows and columns. There all
// tokens are `pad` (C, ), and beyond them zeros.
template <typename Number>
struct Padded {
    Map<Number> map;
    int64_t height, width, padded_height, padded_width;
    const float *pad;  // or null: zeros
};

// Where this is changed, the class of the same name in `depthwise_conv.py` is, too.
static_assert(sizeof(Padded<float>) == 72);

// The channels from c on of tokens in one row.
template <typename Number>
class Row {
   public:
    Row(const Padded<Number> &x, int64_t b, int64_t y, int64_t c)
        : is_zero(y < 0 || y >= x.padded_height), token(x.map.token),
          width(y < x.height ? x.width : 0), padded_width(x.padded_width),
          at(x.map.token_at(b, y, 0) + c), pad(x.pad ? x.pad + c : ZEROS) {}

    Vector inner(int64_t x) const { return load(at + x * token); }

    Vector any(int64_t x) const {
        if (x < 0 || x >= padded_width) return Vector{};
        return x < width ? inner(x) : load(pad);
    }

    // Whether so many tokens from x on are of the map.
    bool has(int64_t x, int64_t count) const { return x >= 0 && x + count <= width; }

    const bool is_zero;

   private:
    int64_t token, width, padded_width;
    const Number *at;
    const float *pad;
};

template <int k, bool is_inner, typename Number>
inline void convolve_row(
    const Row<Number> &row, int64_t left, const float *weight, int64_t channels, Vector *sum
) {
    Vector w[k];
#pragma GCC unroll 16
    for (int i = 0; i < k; i++) w[i] = load(weight + i * channels);
#pragma GCC unroll 32
    for (int i = 0; i < COLUMNS + k - 1; i++) {
        int64_t column = left + i - k / 2;
        Vector x = is_inner ? row.inner(column) : row.any(column);
#pragma GCC unroll 16
        for (int j = 0; j < k; j++)
            if (i - j >= 0 && i - j < COLUMNS) sum[i - j] += w[j] * x;
    }
}

template <int k, typename Number>
void convolve(
    const Padded<Number> &x, const float *weight, const float *bias, const Map<Number> *added,
    const Map<Number> &out, int64_t batch, int64_t height, int64_t width, int64_t channels,
    int threads
) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < batch * height; n++)
        for (int64_t left = 0; left < width; left += COLUMNS)
            for (int64_t c = 0; c < channels; c += LANES) {
                int64_t b = n / height, y = n % height;
                Vector sum[COLUMNS];
                for (int i = 0; i < COLUMNS; i++) sum[i] = bias ? load(bias + c) : Vector{};
                for (int i = 0; i < k; i++) {
                    Row<Number> row(x, b, y + i - k / 2, c);
                    const float *w = weight + i * k * channels + c;
                    if (row.is_zero) continue;
                    if (row.has(left - k / 2, COLUMNS + k - 1))
                        convolve_row<k, true>(row, left, w, channels, sum);
                    else
                        convolve_row<k, false>(row, left, w, channels, sum);
                }
                Number *to = out.token_at(b, y, left) + c;
                const Number *from = added ? added->token_at(b, y, left) + c : nullptr;
                for (int i = 0; i < COLUMNS && left + i < width; i++)
                    store(
                        to + i * out.token, from ? load(from + i * added->token) + sum[i] : sum[i]
                    );
            }
}

template <int k, bool is_inner, typename Number>
inline void sum_products(
    const Row<Number> &row, const Row<Number> &grads, int64_t left, Vector *sum
) {
    Vector grad[COLUMNS];
#pragma GCC unroll 16
    for (int i = 0; i < COLUMNS; i++)
        grad[i] = is_inner ? grads.inner(left + i) : grads.any(left + i);
#pragma GCC unroll 32
    for (int i = 0; i < COLUMNS + k - 1; i++) {
        int64_t column = left + i - k / 2;
        Vector x = is_inner ? row.inner(column) : row.any(column);
#pragma GCC unroll 16
        for (int j = 0; j < k; j++)
            if (i - j >= 0 && i - j < COLUMNS) sum[j] += grad[i - j] * x;
    }
}

// total (k * k + 1, C) += what the rows of maps from `first` up to `last` add to the gradients of
// the weight and, in its last row, of the bias. A row of the map is a sum of its own: less rounding.
template <int k, typename Number>
void sum_rows(
    const Padded<Number> &x, const Padded<Number> &grads, int64_t first, int64_t last,
    int64_t channels, float *total
) {
    for (int64_t n = first; n < last; n++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t b = n / x.height, y = n % x.height;
            Row<Number> grad(grads, b, y, c);
            for (int i = 0; i < k; i++) {
                Row<Number> row(x, b, y + i - k / 2, c);
                if (row.is_zero) continue;
                Vector sum[k] = {};
                for (int64_t left = 0; left < x.width; left += COLUMNS)
                    if (grad.has(left, COLUMNS) && row.has(left - k / 2, COLUMNS + k - 1))
                        sum_products<k, true>(row, grad, left, sum);
                    else
                        sum_products<k, false>(row, grad, left, sum);
                for (int j = 0; j < k; j++) {
                    float *to = total + (i * k + j) * channels + c;
                    store(to, load(to) + sum[j]);
                }
            }
            Vector sum = {};
            for (int64_t column = 0; column < x.width; column++) sum += grad.inner(column);
            float *to = total + k * k * channels + c;
            store(to, load(to) + sum);
        }
}

template <int k, typename Number>
void differentiate(
    const Padded<Number> &x, const Padded<Number> &grads, int64_t batch, int64_t channels,
    float *totals, int threads
) {
    int64_t rows = batch * x.height;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int i = 0; i < threads; i++)
        sum_rows<k>(
            x, grads, rows * i / threads, rows * (i + 1) / threads, channels,
            totals + i * (k * k + 1) * channels
        );
}

// Calls work(k) for a kernel of k x k, one of those that `depthwise_conv.py` lists.
template <typename Work>
void with_kernel(int64_t k, Work work) {
    switch (k) {
        case 3: return work(std::integral_constant<int, 3>());
        case 5: return work(std::integral_constant<int, 5>());
        case 7: return work(std::integral_constant<int, 7>());
        case 9: return work(std::integral_constant<int, 9>());
    }
}

// out (B, height, width, C) = added + bias + the convolution, the first two where not null. The
// weight is (k * k, C). Outputs beyond the map see what of it the kernel reaches.
template <typename Number>
void convolve_any(
    int64_t k, const Padded<Number> &x, const float *weight, const float *bias,
    const Map<Number> *added, const Map<Number> &out, int64_t batch, int64_t height,
    int64_t width, int64_t channels, int threads
) {
    with_kernel(k, [&](auto k) {
        convolve<k>(x, weight, bias, added, out, batch, height, width, channels, threads);
    });
}

// totals, zeros, are (threads, k * k + 1, C): gradients of the weight and the bias.
template <typename Number>
void differentiate_any(
    int64_t k, const Padded<Number> &x, const Padded<Number> &grads, int64_t batch,
    int64_t channels, float *totals, int threads
) {
    with_kernel(k, [&](auto k) { differentiate<k>(x, grads, batch, channels, totals, threads); });
}

}  // namespace

extern "C" {

void convolve_float32(
    int64_t k, const Padded<float> *x, const float *weight, const float *bias,
    const Map<float> *added, const Map<float> *out, int64_t batch, int64_t height,
    int64_t width, int64_t channels, int threads
) {
    convolve_any(k, *x, weight, bias, added, *out, batch, height, width, channels, threads);
}

void convolve_bfloat16(
    int64_t k, const Padded<BFloat16> *x, const float *weight, const float *bias,
    const Map<BFloat16> *added, const Map<BFloat16> *out, int64_t batch, int64_t height,
    int64_t width, int64_t channels, int threads
) {
    convolve_any(k, *x, weight, bias, added, *out, batch, height, width, channels, threads);
}

void differentiate_float32(
    int64_t k, const Padded<float> *x, const Padded<float> *grads, int64_t batch,
    int64_t channels, float *totals, int threads
) {
    differentiate_any(k, *x, *grads, batch, channels, totals, threads);
}

void differentiate_bfloat16(
    int64_t k, const Padded<BFloat16> *x, const Padded<BFloat16> *grads, int64_t batch,
    int64_t channels, float *totals, int threads
) {
    differentiate_any(k, *x, *grads, batch, channels, totals, threads);
}
}

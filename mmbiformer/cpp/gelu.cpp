// GELU, x * (1 + erf(x / sqrt 2)) / 2, and its gradient, in float32 or, computed in float32,
// bfloat16.
//
// `gelu.py` calls the functions at the end of this file.
#include "vectors.h"

namespace {

// erf(x / sqrt 2), off by 1.2e-7 at most, of which the polynomial of least error is off by 3e-8.
inline Vector erf_of(Vector x) {
    constexpr float END = 5.6f;  // from here on it is 1
    Vector s = x * x * (2 / (END * END)) - 1;
    Vector y = all(-6.61323254e-4f);
    constexpr float factors[] = {
        1.71736663e-3f,  -1.25767593e-3f, 1.49824156e-3f,  -5.7265088e-3f,  1.08085983e-2f,
        -1.50871705e-2f, 2.18711592e-2f,  -3.15056575e-2f, 4.19167131e-2f,  -5.26246615e-2f,
        6.39345944e-2f,  -7.66909197e-2f, 9.39620584e-2f,  -.126102582f,    .25251919f,
    };
    for (float factor : factors) y = y * s + factor;
    y *= x;
    y = x > END ? all(1) : y;
    return x < -END ? all(-1) : y;
}

// x (rows, columns) += bias (columns, ), or null for zeros; then out = GELU(x), in place of x or
// not.
template <typename Number>
void add_gelu(
    Number *x, const float *bias, Number *out, int64_t rows, int64_t columns, int threads
) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < columns; i += LANES) {
            Number *at = x + row * columns + i;
            Vector y = bias ? load(at) + load(bias + i) : load(at);
            if (bias && out != x) store(at, y);
            store(out + row * columns + i, y * (erf_of(y) * .5f + .5f));
        }
}

// out = GELU(x), and grad times the gradient of GELU; `numbers` is a multiple of LANES.
template <typename Number>
void differentiate_gelu(const Number *x, Number *grad, Number *out, int64_t numbers, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < numbers; i += LANES) {
        Vector y = load(x + i), below = erf_of(y) * .5f + .5f;
        store(out + i, y * below);
        Vector density = exp_of(y * y * -.5f) * .398942280f;  // 1 / sqrt(2 pi)
        store(grad + i, load(grad + i) * (y * density + below));
    }
}

}  // namespace

extern "C" {

void add_gelu_float32(
    float *x, const float *bias, float *out, int64_t rows, int64_t columns, int threads
) {
    add_gelu(x, bias, out, rows, columns, threads);
}

void add_gelu_bfloat16(
    BFloat16 *x, const float *bias, BFloat16 *out, int64_t rows, int64_t columns, int threads
) {
    add_gelu(x, bias, out, rows, columns, threads);
}

void differentiate_gelu_float32(
    const float *x, float *grad, float *out, int64_t numbers, int threads
) {
    differentiate_gelu(x, grad, out, numbers, threads);
}

void differentiate_gelu_bfloat16(
    const BFloat16 *x, BFloat16 *grad, BFloat16 *out, int64_t numbers, int threads
) {
    differentiate_gelu(x, grad, out, numbers, threads);
}
}

// Products of matrices in a core's cache.
#pragma once
#include "vectors.h"

namespace {

// How many rows of two vectors a product holds in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 12;
#else
constexpr int ROWS = 6;
#endif
constexpr int64_t SUMMED = 32;  // so many products are added up before their sum is: less rounding
constexpr int64_t PANEL = 2 * LANES;

// A matrix whose element (i, j) is at[i * row + j * column].
struct Matrix {
    const float *at;
    int64_t row, column;
};

// A matrix cut into panels of PANEL columns, the last one perhaps of LANES; each is row by row.
struct Panels {
    const float *at;
    int64_t row, panel;  // how many numbers apart rows and panels are
};

// c (rows, columns) = or += a (rows, depth) times b (depth, columns); c is row by row.
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
    int64_t rows, int64_t columns, int64_t depth, Matrix a, Panels b, float *c, int64_t c_row,
    bool add
) {
    for (; columns >= PANEL; columns -= PANEL, b.at += b.panel, c += PANEL)
        multiply_depth<2>(rows, depth, a, b.at, b.row, c, c_row, add);
    if (columns) multiply_depth<1>(rows, depth, a, b.at, b.row, c, c_row, add);
}

}  // namespace

// Vectors of floats as wide as this CPU's registers, by an extension that GCC and Clang share, and
// maps in memory.
#pragma once
#include <cstdint>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef float Anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vector load(const float *x) { return *(const Anywhere *)x; }
inline void store(float *x, Vector y) { *(Anywhere *)x = y; }
inline Vector all(float x) { return Vector{} + x; }

// Lanes of a, by numbers from 0 on, and of b, by numbers from LANES on.
inline Vector shuffle(Vector a, Vector b, Integers lanes) {
#if defined(__clang__)
    Vector shuffled;
    for (int i = 0; i < LANES; i++)
        shuffled[i] = lanes[i] < LANES ? a[lanes[i]] : b[lanes[i] - LANES];
    return shuffled;
#else
    return __builtin_shuffle(a, b, lanes);
#endif
}

// Transposes the matrix of LANES rows: exchanges blocks of half its size, then of half of that.
template <int size = LANES / 2>
inline void transpose(Vector (&rows)[LANES]) {
    if constexpr (size > 0) {
        Integers upper, lower;
        for (int i = 0; i < LANES; i++) {
            upper[i] = i & size ? LANES + i - size : i;
            lower[i] = i & size ? LANES + i : i + size;
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            if (!(i & size)) {
                Vector above = rows[i], below = rows[i + size];
                rows[i] = shuffle(above, below, upper);
                rows[i + size] = shuffle(above, below, lower);
            }
        transpose<size / 2>(rows);
    }
}

inline Vector larger(Vector x, Vector y) { return y > x ? y : x; }  // x where it is NaN
inline Vector sum(Vector x, Vector y) { return x + y; }

// All lanes of a vector by a function of two, in all lanes.
template <Vector of(Vector, Vector), int distance = LANES / 2>
inline Vector across(Vector x) {
    if constexpr (distance == 0) {
        return x;
    } else {
        Integers lanes;
        for (int i = 0; i < LANES; i++) lanes[i] = (i + distance) % LANES;
        return across<of, distance / 2>(of(x, shuffle(x, x, lanes)));
    }
}

// exp of numbers up to 0, to the last bit or two; 0 of those below -86. NaN stays NaN.
inline Vector exp_of(Vector x) {
    constexpr float ROUNDING = 12582912;  // 1.5 * 2^23: of a sum with it, an integer is kept
    Vector sum = x * 1.44269504f + ROUNDING, power = sum - ROUNDING;
    // x = power * ln 2 + rest, with ln 2 in two parts.
    Vector rest = (x - power * 0.693359375f) + power * 2.12194440e-4f;
    // The polynomial of least relative error, 3e-9.
    Vector y = all(1.38145347e-3f);
    constexpr float factors[] = {8.36874545e-3f, 4.16683927e-2f, .166665211f, .49999994f, 1, 1};
    for (float factor : factors) y = y * rest + factor;
    return x < -86 ? Vector{} : (Vector)((Integers)y + ((Integers)sum << 23));
}

// A number in bfloat16: the upper half of one in float32. It is computed with in float32.
struct BFloat16 {
    uint16_t bits;
};

typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint16_t HalvesAnywhere
    __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

inline Vector load(const BFloat16 *x) {
    Halves halves = *(const HalvesAnywhere *)x;
    return (Vector)(__builtin_convertvector(halves, Bits) << 16);
}

// Rounds to the nearest, and of two to the even one. NaN stays NaN.
inline void store(BFloat16 *x, Vector y) {
    Bits bits = (Bits)y;
    Bits rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    Bits upper = y == y ? rounded : (bits >> 16 | 0x40);
    *(HalvesAnywhere *)x = __builtin_convertvector(upper, Halves);
}

// A map (B, H, W, C), channels side by side: where it begins, and how many numbers apart images,
// rows and tokens are.
template <typename Number>
struct Map {
    Number *at;
    int64_t image, row, token;

    Number *token_at(int64_t b, int64_t y, int64_t x) const {
        return at + b * image + y * row + x * token;
    }
};

}  // namespace

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

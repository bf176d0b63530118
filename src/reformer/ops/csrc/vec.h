// Vectors of REFORMER_LANES floats, by the vector extensions of GCC and Clang.
//
// This header and those that include it are compiled once per instruction set: everything is in an
// anonymous namespace and no function of the standard library is used, so that no function compiled for
// one processor can be linked into the code for another.
#pragma once

#include <cstdint>
#include <utility>

#ifdef __AVX2__
#include <immintrin.h>
#endif
#if defined(__AVX512DQ__) && REFORMER_LANES == 16
#define REFORMER_AVX512DQ
#endif

namespace reformer {
namespace {

constexpr int kLanes = REFORMER_LANES;
typedef float Float __attribute__((vector_size(4 * kLanes)));
typedef int32_t Int __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Uint __attribute__((vector_size(4 * kLanes)));

template <class V, class T>
inline V load(const T* p) {
  V x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

template <class V, class T>
inline void store(T* p, V x) {
  __builtin_memcpy(p, &x, sizeof x);
}

inline Float broadcast(float x) { return x - Float{}; }
inline Int broadcast(int32_t x) { return x + Int{}; }
inline Uint broadcast(uint32_t x) { return x + Uint{}; }

inline Float select(Int mask, Float a, Float b) { return mask ? a : b; }

// b where a is NaN: a NaN score reaches the output by its exponential. GCC makes two instructions of the
// general form where AVX2 and AVX-512 have one.
inline Float max(Float a, Float b) {
#if defined(__AVX2__) && REFORMER_LANES == 8
  return (Float)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(REFORMER_AVX512DQ)
  return (Float)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#else
  return select(a > b, a, b);
#endif
}

// Whether all bits are 0.
inline bool is_zero(Int x) {
#if defined(__AVX2__) && REFORMER_LANES == 8
  return _mm256_testz_si256((__m256i)x, (__m256i)x);
#elif defined(REFORMER_AVX512DQ)
  return !_mm512_test_epi32_mask((__m512i)x, (__m512i)x);
#else
  int32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= x[i];
  return !bits;
#endif
}

// 2^x for x <= 0, to an ulp; below 2^-126 some number from 0 to 2^-126, and 0 for -infinity; NaN for NaN.
// Reduced to [-1/2, 1/2] (Cody and Waite), where a fitted polynomial has constant term 1: 2^0 is exact.
inline Float exp2(Float x) {
#ifdef REFORMER_AVX512DQ
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const Float n = (Float)_mm512_maskz_roundscale_ps(0xffff, (__m512)x, nearest);
  const Float f = (Float)_mm512_maskz_reduce_ps(0xffff, (__m512)x, nearest);  // x - n, or 0 for -infinity
#else
  x = max(broadcast(-127.0f), x);
  const Float shift = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Float shifted = x + shift;
  const Float f = x - (shifted - shift);
#endif
  Float p = broadcast(1.5353362e-4f);
  p = p * f + broadcast(1.3398874e-3f);
  p = p * f + broadcast(9.6184374e-3f);
  p = p * f + broadcast(5.5503325e-2f);
  p = p * f + broadcast(2.4022648e-1f);
  p = p * f + broadcast(6.9314720e-1f);
  p = p * f + broadcast(1.0f);
#ifdef REFORMER_AVX512DQ
  return (Float)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)n);
#else
  const Float scaled = (Float)((Int)p + (Int)((Uint)shifted << 23));
  return scaled + f * Float{};  // the shift may have lost a NaN
#endif
}

// The elements of the lower or upper halves of two vectors in turn; the sequence has a number for each of a vector.
template <bool High, class V, int... I>
inline V interleave(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int size = sizeof...(I);
  return __builtin_shufflevector(a, b, ((High ? size / 2 : 0) + I / 2 + (I % 2 ? size : 0))...);
}

// Transposes a square: each step interleaves the upper with the lower half of the rows, which rotates the
// bits of (row, lane) by one; after log2(kLanes) steps the two have changed places.
inline void transpose(Float (&x)[kLanes]) {
  constexpr auto lanes = std::make_integer_sequence<int, kLanes>{};
  for (int step = 1; step < kLanes; step *= 2) {
    Float y[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      y[2 * i] = interleave<false>(x[i], x[i + kLanes / 2], lanes);
      y[2 * i + 1] = interleave<true>(x[i], x[i + kLanes / 2], lanes);
    }
    for (int i = 0; i < kLanes; ++i) x[i] = y[i];
  }
}

}  // namespace
}  // namespace reformer

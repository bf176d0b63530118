// The matrix product that everything rests on.
#pragma once

#include "prefetch.h"
#include "vec.h"

#ifdef REFORMER_BF16
constexpr bool kHasPairs = true;
#else
constexpr bool kHasPairs = false;
#endif
#ifdef REFORMER_AMX
constexpr bool kHasTiles = true;
#else
constexpr bool kHasTiles = false;
#endif

namespace reformer {
namespace {

#if REFORMER_LANES == 16
constexpr int kTileRows = 8;  // 16 accumulators of 32 registers
#elif defined(__aarch64__)
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;  // 8 accumulators of 16 registers
#endif

// Whether to skip products with a weight of 0, so that a NaN or an infinity that is not seen does not spread.
enum class Zeros { kMultiply, kSkip };

// How A lies in memory: element (i, t) is at i * lda + t (kByRow) or i + t * lda (kByStep).
enum class Order { kByRow, kByStep };

// What lies in the place of a float: itself, or two bfloat16 whose products with two others are added up.
enum class Element { kFloat, kPair };

template <Element element>
inline Float element_at(const float* p) {
  if (element == Element::kPair) return (Float)broadcast(*(const uint32_t*)__builtin_assume_aligned(p, 4));
  return broadcast(*p);
}

template <Element element>
inline Float multiply_add(Float sum, Float a, Float b) {
#ifdef REFORMER_BF16
  if (element == Element::kPair) return (Float)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
  return sum + a * b;
}

template <int Vecs, Order order, bool Add, Zeros zeros, Element element>
inline __attribute__((always_inline)) void register_tile(float* C, int64_t ldc, const float* A, int64_t lda,
                                                         const float* B, int64_t ldb, int64_t depth) {
  Float sum[kTileRows][Vecs];
  for (int i = 0; i < kTileRows; ++i)
    for (int j = 0; j < Vecs; ++j) sum[i][j] = Add ? load<Float>(C + i * ldc + j * kLanes) : Float{};
#pragma GCC unroll 4
  for (int64_t t = 0; t < depth; ++t) {
    Float b[Vecs];
#pragma GCC unroll 8
    for (int j = 0; j < Vecs; ++j) b[j] = load<Float>(B + t * ldb + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kTileRows; ++i) {
      const Float a = element_at<element>(order == Order::kByRow ? A + i * lda + t : A + i + t * lda);
#pragma GCC unroll 8
      for (int j = 0; j < Vecs; ++j) {
        if (zeros == Zeros::kMultiply)
          sum[i][j] = multiply_add<element>(sum[i][j], a, b[j]);
        else
          sum[i][j] += select(a != Float{}, a * b[j], Float{});
      }
    }
  }
  for (int i = 0; i < kTileRows; ++i)
    for (int j = 0; j < Vecs; ++j) store(C + i * ldc + j * kLanes, sum[i][j]);
}

// Steps along the depth of all register tiles of a product, about 8 cycles each: the unit in which `ahead` is told of
// work.
inline int64_t product_work(int64_t m, int64_t n, int64_t depth) {
  return m / kTileRows * ((n + 2 * kLanes - 1) / (2 * kLanes)) * depth;
}

// C [m, n] = A [m, depth] @ B [depth, n], or added to C. m is a multiple of 8, n of kLanes; the
// depth counts elements.
template <Order order, bool Add, Zeros zeros = Zeros::kMultiply, Element element = Element::kFloat>
__attribute__((noinline)) void product(float* C, int64_t ldc, const float* A, int64_t lda, const float* B,
                                       int64_t ldb, int64_t m, int64_t n, int64_t depth,
                                       Prefetcher* ahead = nullptr) {
  const int64_t step = order == Order::kByRow ? lda : 1;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes)
    for (int64_t i = 0; i < m; i += kTileRows) {
      register_tile<2, order, Add, zeros, element>(C + i * ldc + j, ldc, A + i * step, lda, B + j, ldb, depth);
      if (ahead) ahead->fetch(depth);
    }
  if (j < n)
    for (int64_t i = 0; i < m; i += kTileRows) {
      register_tile<1, order, Add, zeros, element>(C + i * ldc + j, ldc, A + i * step, lda, B + j, ldb, depth);
      if (ahead) ahead->fetch(depth);
    }
}

}  // namespace
}  // namespace reformer

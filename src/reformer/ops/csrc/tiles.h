// Products of bfloat16 in the tile registers of AMX, each of 16 rows of 64 bytes.
#pragma once

#include "product.h"

namespace reformer {
namespace {

#ifdef REFORMER_AMX
constexpr int kTileRegisterRows = 16;

// Sets the tile registers of this thread up, where they are needed, for as long as it lives.
class TileRegisters {
 public:
  explicit TileRegisters(bool needed) : needed_(needed) {
    if (!needed) return;
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes_of_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
  }
  ~TileRegisters() {
    if (needed_) __asm__ volatile("tilerelease" ::);
  }

 private:
  bool needed_;
};

// As `product` by rows of pairs, of 16 or 32 rows and as many columns; the depth counts pairs. Registers 0 to 3 hold C,
// 4 and 5 what A has, 6 and 7 what B has. The compiler does not know that these instructions read memory.
template <bool Add, bool TwoRows, bool TwoColumns>
inline void tile_block(float* C, int64_t ldc, const float* A, int64_t lda, const float* B, int64_t ldb, int64_t depth) {
  constexpr int k = kTileRegisterRows;
  if (Add) {
    _tile_loadd(0, C, 4 * ldc);
    if (TwoColumns) _tile_loadd(1, C + k, 4 * ldc);
    if (TwoRows) _tile_loadd(2, C + k * ldc, 4 * ldc);
    if (TwoRows && TwoColumns) _tile_loadd(3, C + k * ldc + k, 4 * ldc);
  } else {
    _tile_zero(0);
    if (TwoColumns) _tile_zero(1);
    if (TwoRows) _tile_zero(2);
    if (TwoRows && TwoColumns) _tile_zero(3);
  }
  for (int64_t t = 0; t < depth; t += k) {
    _tile_loadd(4, A + t, 4 * lda);
    _tile_loadd(6, B + t * ldb, 4 * ldb);
    _tile_dpbf16ps(0, 4, 6);
    if (TwoColumns) {
      _tile_loadd(7, B + t * ldb + k, 4 * ldb);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (TwoRows) {
      _tile_loadd(5, A + k * lda + t, 4 * lda);
      _tile_dpbf16ps(2, 5, 6);
      if (TwoColumns) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, C, 4 * ldc);
  if (TwoColumns) _tile_stored(1, C + k, 4 * ldc);
  if (TwoRows) _tile_stored(2, C + k * ldc, 4 * ldc);
  if (TwoRows && TwoColumns) _tile_stored(3, C + k * ldc + k, 4 * ldc);
}

// Work of a product in the unit of `product_work`.
inline int64_t tile_work(int64_t m, int64_t n, int64_t depth) { return m * n * depth / (kTileRegisterRows * 128); }

template <bool Add, bool TwoRows>
inline void tile_rows(float* C, int64_t ldc, const float* A, int64_t lda, const float* B, int64_t ldb, int64_t n,
                      int64_t depth, Prefetcher& ahead) {
  constexpr int k = kTileRegisterRows;
  int64_t j = 0;
  for (; j + 2 * k <= n; j += 2 * k) tile_block<Add, TwoRows, true>(C + j, ldc, A, lda, B + j, ldb, depth);
  if (j < n) tile_block<Add, TwoRows, false>(C + j, ldc, A, lda, B + j, ldb, depth);
  ahead.fetch(tile_work(TwoRows ? 2 * k : k, n, depth));
}

// As `product` by rows of pairs. m is a multiple of 8, n and the depth, which counts pairs, of 16.
template <bool Add>
__attribute__((noinline)) void tile_product(float* C, int64_t ldc, const float* A, int64_t lda, const float* B,
                                            int64_t ldb, int64_t m, int64_t n, int64_t depth,
                                            Prefetcher& ahead) {
  constexpr int k = kTileRegisterRows;
  __asm__ volatile("" ::: "memory");
  int64_t i = 0;
  for (; i + 2 * k <= m; i += 2 * k) tile_rows<Add, true>(C + i * ldc, ldc, A + i * lda, lda, B, ldb, n, depth, ahead);
  if (i + k <= m) {
    tile_rows<Add, false>(C + i * ldc, ldc, A + i * lda, lda, B, ldb, n, depth, ahead);
    i += k;
  }
  if (i < m)
    product<Order::kByRow, Add, Zeros::kMultiply, Element::kPair>(C + i * ldc, ldc, A + i * lda, lda, B, ldb, m - i, n,
                                                                  depth, &ahead);
}
#else
struct TileRegisters {
  explicit TileRegisters(bool) {}
};
#endif

}  // namespace
}  // namespace reformer

// What is done to each vector by itself, in one pass over memory: see ops/position_wise.py.
#pragma once

#include "attention.h"

namespace reformer {
namespace {

// Writes floats to memory of float32 or bfloat16, `at` counting elements.
template <bool kHalf>
inline void write(void* data, int64_t at, Float x) {
  if (!kHalf) return store((float*)data + at, x);
#ifdef REFORMER_BF16
  store((uint16_t*)data + at, _mm512_cvtneps_pbh((__m512)x));
#else
  const Uint bits = (Uint)x;
  const Uint rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  store((uint16_t*)data + at, __builtin_convertvector(x == x ? rounded : broadcast((uint32_t)0x7fc0), Halves));
#endif
}

template <int Shift, int... I>
inline Float rotated(Float x, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(x, x, ((I + Shift) % kLanes)...);
}

template <int Shift = kLanes / 2>
inline float sum_of(Float x) {
  if constexpr (Shift == 0) return x[0];
  else return sum_of<Shift / 2>(x + rotated<Shift>(x, std::make_integer_sequence<int, kLanes>{}));
}

// Rows that are worked on at once, so that one does not wait for the sums of another.
constexpr int kRowsAtOnce = 4;

// Calls work(row, number of rows as a constant) for all rows.
template <class Work>
inline void for_rows(int64_t first, int64_t stop, const Work& work) {
  for (; first + kRowsAtOnce <= stop; first += kRowsAtOnce) work(first, std::integral_constant<int, kRowsAtOnce>{});
  for (; first < stop; ++first) work(first, std::integral_constant<int, 1>{});
}

// Normalises rows, and notes the mean and 1 / the standard deviation of each.
template <bool kHalf>
inline void layer_norm_rows(const NormProblem& p, int64_t first, int64_t stop) {
  for_rows(first, stop, [&](int64_t row, auto count) {
    const int64_t size = p.features;
    const float* const x = p.x + row * size;
    float mean[count], scale[count];
    Float sums[count] = {};
    for (int64_t d = 0; d < size; d += kLanes)
      for (int r = 0; r < count; ++r) sums[r] += load<Float>(x + r * size + d);
    for (int r = 0; r < count; ++r) {
      mean[r] = sum_of(sums[r]) / size;
      sums[r] = Float{};
    }
    for (int64_t d = 0; d < size; d += kLanes)
      for (int r = 0; r < count; ++r) {
        const Float centred = load<Float>(x + r * size + d) - mean[r];
        sums[r] += centred * centred;
      }
    for (int r = 0; r < count; ++r) {
      scale[r] = 1 / __builtin_sqrtf(sum_of(sums[r]) / size + (float)p.epsilon);
      p.moments[2 * (row + r)] = mean[r];
      p.moments[2 * (row + r) + 1] = scale[r];
    }
    for (int64_t d = 0; d < size; d += kLanes) {
      const Float weight = load<Float>(p.weight + d), bias = load<Float>(p.bias + d);
      for (int r = 0; r < count; ++r) {
        const Float normed = (load<Float>(x + r * size + d) - mean[r]) * scale[r];
        write<kHalf>(p.out, (row + r) * size + d, normed * weight + bias);
      }
    }
  });
}

inline void layer_norm(const NormProblem& p, int64_t first, int64_t stop) {
  p.bfloat16 ? layer_norm_rows<true>(p, first, stop) : layer_norm_rows<false>(p, first, stop);
}

template <bool kHalf>
inline void layer_norm_backward_rows(const NormProblem& p, int64_t first, int64_t stop, float* grad_weight,
                                     float* grad_bias) {
  for_rows(first, stop, [&](int64_t row, auto count) {
    const int64_t size = p.features;
    float mean[count], scale[count], mean_grad[count], mean_product[count];
    Float sums[count] = {}, products[count] = {};
    for (int r = 0; r < count; ++r) {
      mean[r] = p.moments[2 * (row + r)];
      scale[r] = p.moments[2 * (row + r) + 1];
    }
    const auto normed = [&](int r, int64_t d) {
      return (load<Float>(p.x + (row + r) * size + d) - mean[r]) * scale[r];
    };
    for (int64_t d = 0; d < size; d += kLanes) {
      const Float weight = load<Float>(p.weight + d);
      Float of_weight = load<Float>(grad_weight + d), of_bias = load<Float>(grad_bias + d);
      for (int r = 0; r < count; ++r) {
        const Float grad = read<kHalf>(p.grad, (row + r) * size + d), product = grad * normed(r, d);
        sums[r] += grad * weight;
        products[r] += product * weight;
        of_weight += product;
        of_bias += grad;
      }
      store(grad_weight + d, of_weight);
      store(grad_bias + d, of_bias);
    }
    for (int r = 0; r < count; ++r) {
      mean_grad[r] = sum_of(sums[r]) / size;
      mean_product[r] = sum_of(products[r]) / size;
    }
    for (int64_t d = 0; d < size; d += kLanes) {
      const Float weight = load<Float>(p.weight + d);
      for (int r = 0; r < count; ++r) {
        const Float grad = read<kHalf>(p.grad, (row + r) * size + d) * weight;
        store(p.grad_x + (row + r) * size + d, (grad - mean_grad[r] - normed(r, d) * mean_product[r]) * scale[r]);
      }
    }
  });
}

// Adds what the rows contribute to the gradients of weight and bias, `grad_parameters` [2, features].
inline void layer_norm_backward(const NormProblem& p, int64_t first, int64_t stop, float* grad_parameters) {
  float* const grad_bias = grad_parameters + p.features;
  p.bfloat16 ? layer_norm_backward_rows<true>(p, first, stop, grad_parameters, grad_bias)
             : layer_norm_backward_rows<false>(p, first, stop, grad_parameters, grad_bias);
}

template <bool kHalf>
inline bool add_floats(const AddProblem& p, int64_t first, int64_t stop) {
  float* const stream = (float*)p.stream;
  const float sign = p.subtract ? -1 : 1;
  Int check{};
  for (int64_t i = first; i < stop; i += kLanes) {
    const Float sum = load<Float>(stream + i) + read<kHalf>(p.update, i) * sign;
    check |= (Int)(sum - sum);
    store(stream + i, sum);
  }
  return is_zero(check);
}

// To the nearest integer, of two that are as near to the even one.
inline Float nearest(Float x) {
#ifdef REFORMER_AVX512DQ
  return (Float)_mm512_maskz_roundscale_ps(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const Float shift = broadcast(8388608.0f);  // 2^23: adding it rounds to an integer; from there on, all are integers
  const Uint sign = (Uint)x & 0x80000000u;
  const Float magnitude = (Float)((Uint)x & 0x7fffffffu);
  const Float rounded = (Float)((Uint)((magnitude + shift) - shift) | sign);
  return select(magnitude < shift, rounded, x);
#endif
}

template <bool kHalf>
inline bool add_fixed(const AddProblem& p, int64_t first, int64_t stop) {
  int32_t* const stream = (int32_t*)p.stream;
  Int left{};  // the sign is set where the range was left
  for (int64_t i = first; i < stop; i += kLanes) {
    const Float fixed = nearest(read<kHalf>(p.update, i) * (float)p.unit);
    const Int is_within = (fixed > -2147483648.0f) & (fixed < 2147483648.0f);
    const Int delta = __builtin_convertvector(select(is_within, fixed, Float{}), Int);
    const Int old = load<Int>(stream + i);
    const Int sum = (Int)(p.subtract ? (Uint)old - (Uint)delta : (Uint)old + (Uint)delta);
    left |= ~is_within | ((old ^ sum) & (delta ^ sum));
    store(stream + i, sum);
  }
  int32_t all = 0;
  for (int i = 0; i < kLanes; ++i) all |= left[i];
  return all >= 0;
}

// Adds elements [first, stop); false where a sum is not finite or left the range.
inline bool add(const AddProblem& p, int64_t first, int64_t stop) {
  if (p.unit) return p.bfloat16 ? add_fixed<true>(p, first, stop) : add_fixed<false>(p, first, stop);
  return p.bfloat16 ? add_floats<true>(p, first, stop) : add_floats<false>(p, first, stop);
}

}  // namespace
}  // namespace reformer

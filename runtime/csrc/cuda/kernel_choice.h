// Which of the decoder's kernels a launch takes.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_KERNEL_CHOICE_H
#define TOOLKIT_CUDA_KERNEL_CHOICE_H

#include "decode_plan.h"
#include "warp_rows.h"

namespace toolkit::cuda {

// Kernels::kOf<Symbol, kLayout, kSet> of a plan. Symbols of 8 bits with tables that are found in one or two loads have
// a kernel for each kind of set; the others, which are slower anyway, have one for all, and one with trellis states.
template <class Kernels, class Symbol, Layout kLayout>
typename Kernels::Function kernel_in(const DecodeLaunch& launch) {
  if (launch.trellis) return Kernels::template kOf<Symbol, kLayout, SetKind::kTrellis>;
  if constexpr (sizeof(Symbol) == 1 && (kLayout == Layout::kDirect || kLayout == Layout::kPaired)) {
    if (launch.contexts && launch.columns) return Kernels::template kOf<Symbol, kLayout, SetKind::kContextsColumns>;
    if (launch.contexts) return Kernels::template kOf<Symbol, kLayout, SetKind::kContexts>;
    if (launch.columns) return Kernels::template kOf<Symbol, kLayout, SetKind::kColumns>;
    return Kernels::template kOf<Symbol, kLayout, SetKind::kPlain>;
  } else {
    return Kernels::template kOf<Symbol, kLayout, SetKind::kAny>;
  }
}

template <class Kernels, class Symbol>
typename Kernels::Function kernel_of_layout(Layout layout, const DecodeLaunch& launch) {
  switch (layout) {
    case Layout::kDirect:
      return kernel_in<Kernels, Symbol, Layout::kDirect>(launch);
    case Layout::kPaired:
      return kernel_in<Kernels, Symbol, Layout::kPaired>(launch);
    case Layout::kBuckets:
      return kernel_in<Kernels, Symbol, Layout::kBuckets>(launch);
    default:
      return kernel_in<Kernels, Symbol, Layout::kGlobalBuckets>(launch);
  }
}

template <class Kernels>
typename Kernels::Function kernel_of(const DecodePlan& plan) {
  const Layout layout = plan.layout;
  return plan.wide ? kernel_of_layout<Kernels, int16_t>(layout, plan.launch)
                   : kernel_of_layout<Kernels, int8_t>(layout, plan.launch);
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_KERNEL_CHOICE_H

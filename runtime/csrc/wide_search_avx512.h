// The AVX-512 block decoder for small alphabets, which finds symbols in search trees.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_SEARCH_AVX512_H
#define TOOLKIT_WIDE_SEARCH_AVX512_H

#include "wide_kernels.h"

namespace toolkit::wide {

// As DecodeBlocks, for jobs that all have a tree, or all a forest, and the first of them. `wide`: 16-bit symbols.
bool search_blocks_avx512(bool wide, const BlockJob& first, int seats, const NextJob& next);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_SEARCH_AVX512_H

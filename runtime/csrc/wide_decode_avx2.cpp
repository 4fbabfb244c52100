// The AVX2 block decoder (placeholder until written below).
#include "wide_kernels.h"
#if defined(__x86_64__)
namespace toolkit::wide { Kernels kernels_avx2(){ return kernels_portable(); } }
#endif

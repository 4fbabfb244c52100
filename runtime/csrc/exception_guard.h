// Exceptions end where C begins: they become status codes.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_EXCEPTION_GUARD_H
#define TOOLKIT_EXCEPTION_GUARD_H

#include <new>

#include "codec_api.h"

namespace toolkit {

// What f returns, a status; TK_ERR_MEMORY where an allocation failed, TK_ERR_ARGUMENT after any other exception.
template <class F>
int32_t guarded(F f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return TK_ERR_MEMORY;
  } catch (...) {
    return TK_ERR_ARGUMENT;
  }
}

}  // namespace toolkit

#endif  // TOOLKIT_EXCEPTION_GUARD_H

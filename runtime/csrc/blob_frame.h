#ifndef TMP_FRAME
#define TMP_FRAME
#include "codec_api.h"
namespace toolkit { inline constexpr int kFrameWords=6; inline constexpr int kCoderWide=1;
tk_status check_frame(const uint16_t*,int64_t,int,const uint16_t**,int64_t*); void write_frame(uint16_t* w,int64_t n,int coder);}
#endif

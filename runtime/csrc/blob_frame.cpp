#include "blob_frame.h"
uint32_t tk_crc32(const void* d,int64_t n){ static uint32_t T[256]; if(!T[1]) for(uint32_t i=0;i<256;i++){uint32_t c=i;for(int k=0;k<8;k++)c=c&1?0xEDB88320u^(c>>1):c>>1;T[i]=c;} uint32_t c=~0u; auto*p=(const uint8_t*)d; while(n--)c=T[(c^*p++)&255]^(c>>8); return ~c;}
const char* tk_status_text(int32_t){return "x";}
namespace toolkit{
tk_status check_frame(const uint16_t*w,int64_t n,int coder,const uint16_t**b,int64_t*bn){ if(n<6)return TK_ERR_TRUNCATED; if(w[0]!=0x574E)return TK_ERR_MAGIC; if((w[1]&255)!=1)return TK_ERR_VERSION; if((w[1]>>8)!=coder)return TK_ERR_CODER; if((w[4]|(uint32_t)w[5]<<16)!=n)return TK_ERR_TRUNCATED; if((w[2]|(uint32_t)w[3]<<16)!=tk_crc32(w+4,(n-4)*2))return TK_ERR_CHECKSUM; *b=w+6;*bn=n-6;return TK_OK;}
void write_frame(uint16_t*w,int64_t n,int coder){w[0]=0x574E;w[1]=1|coder<<8;w[4]=n;w[5]=n>>16;uint32_t c=tk_crc32(w+4,(n-4)*2);w[2]=c;w[3]=c>>16;}
}

/* What a host of WebAssembly needs beside hrm.h: memory for one caller, and where it lies. */
#include "hrm.h"

static hrm_state state;
static int32_t tokens[HRM_SEQ_LEN], answer[HRM_SEQ_LEN];
static float q[2];

hrm_state *hrm_wasm_state(void)
{
    return &state;
}

int32_t *hrm_wasm_tokens(void)
{
    return tokens;
}

int32_t *hrm_wasm_answer(void)
{
    return answer;
}

float *hrm_wasm_q(void)
{
    return q;
}

int32_t hrm_wasm_seq_len(void)
{
    return HRM_SEQ_LEN;
}

int32_t hrm_wasm_vocab(void)
{
    return HRM_VOCAB;
}

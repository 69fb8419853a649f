/* y[rows, width] = x[rows, 4 depth] w[4 depth, columns] in int8 with sums in int32, times both scales.
   w is [width / 16, depth, 16, 4], filled up with zeros: four rows of a column lie side by side.
   A few rows by a few columns at a time stay in registers. */
#define HRM_ARGUMENTS                                                                                                 \
    const int8_t *x, int ldx, const int8_t *w, const int32_t *sums, const float *scales, float scale, float *y, \
        int ldy, int depth, int width

/* Where the k-th four rows of column n lie. */
#define HRM_AT(n, k) (((n) / 16 * depth + (k)) * 64 + (n) % 16 * 4)

#if defined(HRM_VNNI)

static inline int32_t hrm_four(const int8_t *x)
{
    int32_t word;
    __builtin_memcpy(&word, x, 4);
    return word;
}

/* x is kept with 128 added, which multiplies unsigned by signed; the columns' sums take that off again. */
#define HRM_INT_PANEL(ROWS, VECTORS)                                                                                  \
    static inline void hrm_int_panel_##ROWS##_##VECTORS(HRM_ARGUMENTS, int n)                                         \
    {                                                                                                                 \
        __m512i total[ROWS][VECTORS];                                                                                 \
        for (int v = 0; v < VECTORS; v++) {                                                                           \
            const __m512i more = _mm512_slli_epi32(_mm512_loadu_si512(sums + n + v * 16), 7);                         \
            for (int r = 0; r < ROWS; r++)                                                                            \
                total[r][v] = _mm512_sub_epi32(_mm512_setzero_si512(), more);                                         \
        }                                                                                                             \
        for (int k = 0; k < depth; k++) {                                                                             \
            __m512i part[VECTORS];                                                                                    \
            for (int v = 0; v < VECTORS; v++)                                                                         \
                part[v] = _mm512_loadu_si512(w + HRM_AT(n + v * 16, k));                                              \
            for (int r = 0; r < ROWS; r++) {                                                                          \
                const __m512i four = _mm512_set1_epi32(hrm_four(x + r * ldx + k * 4));                                \
                for (int v = 0; v < VECTORS; v++)                                                                     \
                    total[r][v] = _mm512_dpbusd_epi32(total[r][v], four, part[v]);                                    \
            }                                                                                                         \
        }                                                                                                             \
        for (int v = 0; v < VECTORS; v++) {                                                                           \
            const int left = width - n - v * 16;                                                                      \
            const __mmask16 there = (__mmask16)(left >= 16 ? 0xffffu : left > 0 ? (1u << left) - 1u : 0u);            \
            const __m512 by = _mm512_mul_ps(_mm512_maskz_loadu_ps(there, scales + n + v * 16), _mm512_set1_ps(scale)); \
            for (int r = 0; r < ROWS; r++)                                                                            \
                _mm512_mask_storeu_ps(y + r * ldy + n + v * 16, there,                                                \
                                      _mm512_mul_ps(_mm512_cvtepi32_ps(total[r][v]), by));                            \
        }                                                                                                             \
    }
#define HRM_INT_ROWS(ROWS)                                                                                            \
    HRM_INT_PANEL(ROWS, 2)                                                                                            \
    HRM_INT_PANEL(ROWS, 1)                                                                                            \
    static void hrm_int_rows_##ROWS(HRM_ARGUMENTS)                                                                    \
    {                                                                                                                 \
        int n = 0;                                                                                                    \
        for (; n + 16 < width; n += 32)                                                                               \
            hrm_int_panel_##ROWS##_2(x, ldx, w, sums, scales, scale, y, ldy, depth, width, n);                        \
        if (n < width)                                                                                                \
            hrm_int_panel_##ROWS##_1(x, ldx, w, sums, scales, scale, y, ldy, depth, width, n);                        \
    }
#define HRM_INT_TILE 8

#else

/* Sums of the columns from n on as floats, those that are left. */
static inline void hrm_scaled(const int32_t *sums, const float *scales, float scale, float *y, int n, int width,
                              int count)
{
    const int left = width - n < count ? width - n : count;
    for (int c = 0; c < left; c++)
        y[n + c] = (float)sums[c] * (scale * scales[n + c]);
}

#if !defined(HRM_PLAIN) && defined(__AVX2__)

static inline __m256i hrm_four(const int8_t *x)
{
    int32_t word;
    __builtin_memcpy(&word, x, 4);
    return _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(word)));
}

/* Eight columns, each in two halves: of the first and second, of the third and fourth row of every four. */
#define HRM_INT_ROWS(ROWS)                                                                                            \
    static void hrm_int_rows_##ROWS(HRM_ARGUMENTS)                                                                    \
    {                                                                                                                 \
        (void)sums;                                                                                                   \
        for (int n = 0; n < width; n += 8) {                                                                          \
            __m256i total[ROWS][2];                                                                                   \
            for (int r = 0; r < ROWS; r++)                                                                            \
                total[r][0] = total[r][1] = _mm256_setzero_si256();                                                   \
            for (int k = 0; k < depth; k++) {                                                                         \
                const int8_t *const part = w + HRM_AT(n, k);                                                          \
                const __m256i one = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)part));       \
                const __m256i two = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(part + 16))); \
                for (int r = 0; r < ROWS; r++) {                                                                      \
                    const __m256i four = hrm_four(x + r * ldx + k * 4);                                               \
                    total[r][0] = _mm256_add_epi32(total[r][0], _mm256_madd_epi16(one, four));                        \
                    total[r][1] = _mm256_add_epi32(total[r][1], _mm256_madd_epi16(two, four));                        \
                }                                                                                                     \
            }                                                                                                         \
            for (int r = 0; r < ROWS; r++) {                                                                          \
                int32_t whole[8];                                                                                     \
                const __m256i both = _mm256_hadd_epi32(total[r][0], total[r][1]);                                     \
                _mm256_storeu_si256((__m256i *)(void *)whole, _mm256_permute4x64_epi64(both, 0xd8));                  \
                hrm_scaled(whole, scales, scale, y + r * ldy, n, width, 8);                                           \
            }                                                                                                         \
        }                                                                                                             \
    }
#define HRM_INT_TILE 4

#elif !defined(HRM_PLAIN) && defined(__wasm_simd128__)

/* Four columns, each in two halves: of the first and second, of the third and fourth row of every four. */
#define HRM_INT_ROWS(ROWS)                                                                                            \
    static void hrm_int_rows_##ROWS(HRM_ARGUMENTS)                                                                    \
    {                                                                                                                 \
        (void)sums;                                                                                                   \
        for (int n = 0; n < width; n += 4) {                                                                          \
            v128_t total[ROWS][2];                                                                                    \
            for (int r = 0; r < ROWS; r++)                                                                            \
                total[r][0] = total[r][1] = wasm_i32x4_const(0, 0, 0, 0);                                             \
            for (int k = 0; k < depth; k++) {                                                                         \
                const v128_t part = wasm_v128_load(w + HRM_AT(n, k));                                                 \
                const v128_t one = wasm_i16x8_extend_low_i8x16(part), two = wasm_i16x8_extend_high_i8x16(part);       \
                for (int r = 0; r < ROWS; r++) {                                                                      \
                    const v128_t four = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_splat(x + r * ldx + k * 4));     \
                    total[r][0] = wasm_i32x4_add(total[r][0], wasm_i32x4_dot_i16x8(one, four));                       \
                    total[r][1] = wasm_i32x4_add(total[r][1], wasm_i32x4_dot_i16x8(two, four));                       \
                }                                                                                                     \
            }                                                                                                         \
            for (int r = 0; r < ROWS; r++) {                                                                          \
                int32_t whole[4];                                                                                     \
                const v128_t even = wasm_i32x4_shuffle(total[r][0], total[r][1], 0, 2, 4, 6);                         \
                const v128_t odd = wasm_i32x4_shuffle(total[r][0], total[r][1], 1, 3, 5, 7);                          \
                wasm_v128_store(whole, wasm_i32x4_add(even, odd));                                                    \
                hrm_scaled(whole, scales, scale, y + r * ldy, n, width, 4);                                           \
            }                                                                                                         \
        }                                                                                                             \
    }
#define HRM_INT_TILE 4

#elif !defined(HRM_PLAIN) && defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)

static inline int8x16_t hrm_four(const int8_t *x)
{
    int32_t word;
    __builtin_memcpy(&word, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(word));
}

#define HRM_INT_ROWS(ROWS)                                                                                            \
    static void hrm_int_rows_##ROWS(HRM_ARGUMENTS)                                                                    \
    {                                                                                                                 \
        (void)sums;                                                                                                   \
        for (int n = 0; n < width; n += 8) {                                                                          \
            int32x4_t total[ROWS][2];                                                                                 \
            for (int r = 0; r < ROWS; r++)                                                                            \
                total[r][0] = total[r][1] = vdupq_n_s32(0);                                                           \
            for (int k = 0; k < depth; k++) {                                                                         \
                const int8_t *const part = w + HRM_AT(n, k);                                                          \
                const int8x16_t one = vld1q_s8(part), two = vld1q_s8(part + 16);                                      \
                for (int r = 0; r < ROWS; r++) {                                                                      \
                    const int8x16_t four = hrm_four(x + r * ldx + k * 4);                                             \
                    total[r][0] = vdotq_s32(total[r][0], one, four);                                                  \
                    total[r][1] = vdotq_s32(total[r][1], two, four);                                                  \
                }                                                                                                     \
            }                                                                                                         \
            for (int r = 0; r < ROWS; r++) {                                                                          \
                int32_t whole[8];                                                                                     \
                vst1q_s32(whole, total[r][0]);                                                                        \
                vst1q_s32(whole + 4, total[r][1]);                                                                    \
                hrm_scaled(whole, scales, scale, y + r * ldy, n, width, 8);                                           \
            }                                                                                                         \
        }                                                                                                             \
    }
#define HRM_INT_TILE 4

#elif !defined(HRM_PLAIN) && defined(__ARM_FEATURE_DSP) && defined(__GNUC__)

static inline uint32_t hrm_four(const int8_t *x)
{
    uint32_t word;
    __builtin_memcpy(&word, x, 4);
    return word;
}

/* Two columns, two products an instruction: of the first and third, of the second and fourth row of every four. */
#define HRM_INT_ROWS(ROWS)                                                                                            \
    static void hrm_int_rows_##ROWS(HRM_ARGUMENTS)                                                                    \
    {                                                                                                                 \
        (void)sums;                                                                                                   \
        for (int n = 0; n < width; n += 2) {                                                                          \
            int32_t total[ROWS][2] = {{0}};                                                                           \
            const int8_t *part = w + HRM_AT(n, 0), *in = x;                                                           \
            for (int k = 0; k < depth; k++, part += 64, in += 4) {                                                    \
                const uint32_t one = hrm_four(part), two = hrm_four(part + 4);                                        \
                const int16x2_t a = __sxtb16(one), b = __sxtb16(one >> 8 | one << 24);                                \
                const int16x2_t c = __sxtb16(two), d = __sxtb16(two >> 8 | two << 24);                                \
                for (int r = 0; r < ROWS; r++) {                                                                      \
                    const uint32_t four = hrm_four(in + r * ldx);                                                     \
                    const int16x2_t even = __sxtb16(four), odd = __sxtb16(four >> 8 | four << 24);                    \
                    total[r][0] = __smlad(odd, b, __smlad(even, a, total[r][0]));                                     \
                    total[r][1] = __smlad(odd, d, __smlad(even, c, total[r][1]));                                     \
                }                                                                                                     \
            }                                                                                                         \
            for (int r = 0; r < ROWS; r++)                                                                            \
                hrm_scaled(total[r], scales, scale, y + r * ldy, n, width, 2);                                        \
        }                                                                                                             \
    }
#define HRM_INT_TILE 2

#else

#define HRM_INT_ROWS(ROWS)                                                                                            \
    static void hrm_int_rows_##ROWS(HRM_ARGUMENTS)                                                                    \
    {                                                                                                                 \
        (void)sums;                                                                                                   \
        for (int n = 0; n < width; n += 4) {                                                                          \
            int32_t total[ROWS][4] = {{0}};                                                                           \
            for (int k = 0; k < depth; k++) {                                                                         \
                const int8_t *const part = w + HRM_AT(n, k);                                                          \
                for (int r = 0; r < ROWS; r++)                                                                        \
                    for (int c = 0; c < 4; c++)                                                                       \
                        for (int i = 0; i < 4; i++)                                                                   \
                            total[r][c] += x[r * ldx + k * 4 + i] * part[c * 4 + i];                                  \
            }                                                                                                         \
            for (int r = 0; r < ROWS; r++)                                                                            \
                hrm_scaled(total[r], scales, scale, y + r * ldy, n, width, 4);                                        \
        }                                                                                                             \
    }
#define HRM_INT_TILE 4

#endif
#endif

#if HRM_INT_TILE == 8
HRM_INT_ROWS(8)
#elif HRM_INT_TILE == 4
HRM_INT_ROWS(4)
#else
HRM_INT_ROWS(2)
#endif
HRM_INT_ROWS(1)

HRM_KERNEL void hrm_matmul_int8(const int8_t *x, int ldx, const int8_t *w, const int32_t *sums, const float *scales,
                                float scale, float *y, int ldy, int rows, int depth, int width)
{
    int r = 0;
    for (; r + HRM_INT_TILE <= rows; r += HRM_INT_TILE) {
#if HRM_INT_TILE == 8
        hrm_int_rows_8(x + r * ldx, ldx, w, sums, scales, scale, y + r * ldy, ldy, depth, width);
#elif HRM_INT_TILE == 4
        hrm_int_rows_4(x + r * ldx, ldx, w, sums, scales, scale, y + r * ldy, ldy, depth, width);
#else
        hrm_int_rows_2(x + r * ldx, ldx, w, sums, scales, scale, y + r * ldy, ldy, depth, width);
#endif
    }
    for (; r < rows; r++)
        hrm_int_rows_1(x + r * ldx, ldx, w, sums, scales, scale, y + r * ldy, ldy, depth, width);
}

/* y[rows, width] = x[rows, depth] w[depth, width]. A few rows by a few vectors of columns at a time stay in registers. */
#define HRM_PANEL(ROWS, VECTORS)                                                                                      \
    static inline void hrm_panel_##ROWS##_##VECTORS(const float *x, int ldx, const float *w, int ldw, float *y,       \
                                                    int ldy, int depth)                                               \
    {                                                                                                                 \
        hrm_vector sums[ROWS][VECTORS];                                                                               \
        for (int r = 0; r < ROWS; r++)                                                                                \
            for (int v = 0; v < VECTORS; v++)                                                                         \
                sums[r][v] = (hrm_vector)HRM_ZERO;                                                                    \
        for (int k = 0; k < depth; k++) {                                                                             \
            hrm_vector row[VECTORS];                                                                                  \
            for (int v = 0; v < VECTORS; v++)                                                                         \
                row[v] = *(const hrm_vector *)(w + k * ldw + v * HRM_LANES);                                          \
            for (int r = 0; r < ROWS; r++)                                                                            \
                for (int v = 0; v < VECTORS; v++)                                                                     \
                    sums[r][v] += x[r * ldx + k] * row[v];                                                            \
        }                                                                                                             \
        for (int r = 0; r < ROWS; r++)                                                                                \
            for (int v = 0; v < VECTORS; v++)                                                                         \
                *(hrm_vector *)(y + r * ldy + v * HRM_LANES) = sums[r][v];                                            \
    }

#if HRM_LANES == 16
#define HRM_VECTORS 2
HRM_PANEL(8, 2)
HRM_PANEL(8, 1)
#elif HRM_LANES > 1
#define HRM_VECTORS 2
#else
#define HRM_VECTORS 4
#endif
#if HRM_VECTORS == 2
HRM_PANEL(4, 2)
HRM_PANEL(1, 2)
#define HRM_WIDE(ROWS) hrm_panel_##ROWS##_2
#else
HRM_PANEL(4, 4)
HRM_PANEL(1, 4)
#define HRM_WIDE(ROWS) hrm_panel_##ROWS##_4
#endif
HRM_PANEL(4, 1)
HRM_PANEL(1, 1)

#define HRM_COLUMNS(ROWS)                                                                                             \
    {                                                                                                                 \
        int n = 0;                                                                                                    \
        for (; n + HRM_VECTORS * HRM_LANES <= width; n += HRM_VECTORS * HRM_LANES)                                    \
            HRM_WIDE(ROWS)(x + r * ldx, ldx, w + n, ldw, y + r * ldy + n, ldy, depth);                                \
        for (; n + HRM_LANES <= width; n += HRM_LANES)                                                                \
            hrm_panel_##ROWS##_1(x + r * ldx, ldx, w + n, ldw, y + r * ldy + n, ldy, depth);                          \
        r += ROWS;                                                                                                    \
    }

HRM_KERNEL void hrm_matmul(const float *x, int ldx, const float *w, int ldw, float *y, int ldy, int rows, int depth,
                           int width)
{
    int r = 0;
#if HRM_LANES == 16
    while (r + 8 <= rows)
        HRM_COLUMNS(8)
#endif
    while (r + 4 <= rows)
        HRM_COLUMNS(4)
    while (r < rows)
        HRM_COLUMNS(1)
    for (int n = width / HRM_LANES * HRM_LANES; n < width; n++)
        for (r = 0; r < rows; r++) {
            float sum = 0.0f;
            for (int k = 0; k < depth; k++)
                sum += x[r * ldx + k] * w[k * ldw + n];
            y[r * ldy + n] = sum;
        }
}

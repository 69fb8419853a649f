/* y[rows, width] = x[rows, depth] w[depth, width]. Rows of w are ldw apart, and every 16 columns w_panel: a weight is stored
   in panels of 16 columns, which are then read from one place to the next.
   A few rows by a few vectors of columns at a time stay in registers. All rows pass before the next columns come, so that
   these are in the cache by then. */
#define HRM_PANEL(ROWS, VECTORS)                                                                                      \
    static inline void hrm_panel_##ROWS##_##VECTORS(const float *x, int ldx, const float *w, int ldw, int w_panel,    \
                                                    float *y, int ldy, int depth)                                     \
    {                                                                                                                 \
        hrm_vector sums[ROWS][VECTORS];                                                                               \
        for (int r = 0; r < ROWS; r++)                                                                                \
            for (int v = 0; v < VECTORS; v++)                                                                         \
                sums[r][v] = (hrm_vector)HRM_ZERO;                                                                    \
        for (int k = 0; k < depth; k++) {                                                                             \
            hrm_vector row[VECTORS];                                                                                  \
            for (int v = 0; v < VECTORS; v++)                                                                         \
                row[v] = *(const hrm_vector *)(w + k * ldw + v * HRM_LANES / 16 * w_panel + v * HRM_LANES % 16);      \
            for (int r = 0; r < ROWS; r++)                                                                            \
                for (int v = 0; v < VECTORS; v++)                                                                     \
                    sums[r][v] += x[r * ldx + k] * row[v];                                                            \
        }                                                                                                             \
        for (int r = 0; r < ROWS; r++)                                                                                \
            for (int v = 0; v < VECTORS; v++)                                                                         \
                *(hrm_vector *)(y + r * ldy + v * HRM_LANES) = sums[r][v];                                            \
    }

/* As many rows as there are registers for. */
#if HRM_LANES > 1
#define HRM_VECTORS 2
#define HRM_WIDE(ROWS) hrm_panel_##ROWS##_2
#define HRM_PANELS(ROWS)                                                                                              \
    HRM_PANEL(ROWS, 2)                                                                                                \
    HRM_PANEL(ROWS, 1)
#else
#define HRM_VECTORS 4
#define HRM_WIDE(ROWS) hrm_panel_##ROWS##_4
#define HRM_PANELS(ROWS)                                                                                              \
    HRM_PANEL(ROWS, 4)                                                                                                \
    HRM_PANEL(ROWS, 1)
#endif
#define HRM_NARROW(ROWS) hrm_panel_##ROWS##_1
#if HRM_LANES == 16
HRM_PANELS(8)
#elif HRM_LANES == 8
HRM_PANELS(6)
#endif
HRM_PANELS(4)
HRM_PANELS(2)
HRM_PANELS(1)

/* All rows of the columns from n on. */
#define HRM_ROWS(PANEL, ROWS)                                                                                         \
    for (; r + ROWS <= rows; r += ROWS)                                                                               \
        PANEL(ROWS)(x + r * ldx, ldx, w + n / 16 * w_panel + n % 16, ldw, w_panel, y + r * ldy + n, ldy, depth);
#if HRM_LANES == 16
#define HRM_ALL_ROWS(PANEL) HRM_ROWS(PANEL, 8) HRM_ROWS(PANEL, 4) HRM_ROWS(PANEL, 2) HRM_ROWS(PANEL, 1)
#elif HRM_LANES == 8
#define HRM_ALL_ROWS(PANEL) HRM_ROWS(PANEL, 6) HRM_ROWS(PANEL, 4) HRM_ROWS(PANEL, 2) HRM_ROWS(PANEL, 1)
#else
#define HRM_ALL_ROWS(PANEL) HRM_ROWS(PANEL, 4) HRM_ROWS(PANEL, 2) HRM_ROWS(PANEL, 1)
#endif

HRM_KERNEL void hrm_matmul(const float *x, int ldx, const float *w, int ldw, int w_panel, float *y, int ldy, int rows,
                           int depth, int width)
{
    int n = 0;
    for (; n + HRM_VECTORS * HRM_LANES <= width; n += HRM_VECTORS * HRM_LANES) {
        int r = 0;
        HRM_ALL_ROWS(HRM_WIDE)
    }
    for (; n + HRM_LANES <= width; n += HRM_LANES) {
        int r = 0;
        HRM_ALL_ROWS(HRM_NARROW)
    }
    for (; n < width; n++)
        for (int r = 0; r < rows; r++) {
            float sum = 0.0f;
            for (int k = 0; k < depth; k++)
                sum += x[r * ldx + k] * w[n / 16 * w_panel + n % 16 + k * ldw];
            y[r * ldy + n] = sum;
        }
}

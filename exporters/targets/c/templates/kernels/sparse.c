/* y[rows, width] = A x, of A the entries alone: those of row r are numbers begins[r] to begins[r + 1]. */
HRM_KERNEL void hrm_sparse(const int32_t *begins, const int32_t *columns, const float *values, const float *x, int ldx,
                           float *y, int ldy, int rows, int width)
{
    for (int r = 0; r < rows; r++) {
        float *const out = y + r * ldy;
        for (int i = 0; i < width; i++)
            out[i] = 0.0f;
        for (int32_t k = begins[r]; k < begins[r + 1]; k++) {
            const float value = values[k];
            const float *const in = x + columns[k] * ldx;
            HRM_VECTORIZE
            for (int i = 0; i < width; i++)
                out[i] += value * in[i];
        }
    }
}

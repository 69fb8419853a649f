static void hrm_softmax(const float *x, float *y, int width)
{
    const float most = hrm_row_max(x, width);
    HRM_VECTORIZE
    for (int i = 0; i < width; i++)
        y[i] = hrm_exp(x[i] - most);
    const float share = 1.0f / hrm_row_sum(y, width);
    HRM_VECTORIZE
    for (int i = 0; i < width; i++)
        y[i] *= share;
}

static float hrm_row_squares(const float *x, int width)
{
    float sums[16] = {0}, sum = 0.0f;
    int i = 0;
    for (; i + 16 <= width; i += 16)
        for (int k = 0; k < 16; k++)
            sums[k] += x[i + k] * x[i + k];
    for (; i < width; i++)
        sum += x[i] * x[i];
    for (int k = 0; k < 16; k++)
        sum += sums[k];
    return sum;
}

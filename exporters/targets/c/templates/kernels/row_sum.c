static float hrm_row_sum(const float *x, int width)
{
    float sums[16] = {0}, sum = 0.0f;
    const int whole = width - width % 16;
    for (int i = 0; i < whole; i += 16)
        for (int k = 0; k < 16; k++)
            sums[k] += x[i + k];
    for (int i = whole; i < width; i++)
        sum += x[i];
    for (int k = 0; k < 16; k++)
        sum += sums[k];
    return sum;
}

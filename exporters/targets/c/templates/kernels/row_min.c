static float hrm_row_min(const float *x, int width)
{
    float least = x[0];
    for (int i = 1; i < width; i++)
        least = x[i] < least ? x[i] : least;
    return least;
}

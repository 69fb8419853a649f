static float hrm_row_max(const float *x, int width)
{
    float most = x[0];
    for (int i = 1; i < width; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

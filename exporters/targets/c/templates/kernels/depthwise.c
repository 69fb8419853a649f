/* Every channel by itself; channels lie side by side, weights are [kernel_height, kernel_width, channels]. */
HRM_KERNEL void hrm_depthwise(const float *x, const float *weight, const float *bias, float *y, int channels, int x_line,
                              int x_cell, int y_line, int y_cell, hrm_grid g)
{
    for (int i = 0; i < g.out_height; i++)
        for (int j = 0; j < g.out_width; j++) {
            float *const out = y + i * y_line + j * y_cell;
            for (int c = 0; c < channels; c++)
                out[c] = bias ? bias[c] : 0.0f;
            for (int k = 0; k < g.kernel_height; k++)
                for (int l = 0; l < g.kernel_width; l++) {
                    const int line = i * g.stride_height - g.pad_height + k * g.dilation_height;
                    const int cell = j * g.stride_width - g.pad_width + l * g.dilation_width;
                    if (line < 0 || line >= g.height || cell < 0 || cell >= g.width)
                        continue;
                    const float *const in = x + line * x_line + cell * x_cell;
                    const float *const w = weight + (k * g.kernel_width + l) * channels;
                    HRM_VECTORIZE
                    for (int c = 0; c < channels; c++)
                        out[c] += in[c] * w[c];
                }
        }
}

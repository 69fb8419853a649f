/* Weights are [made, channels / groups, kernel_height, kernel_width]. */
HRM_KERNEL void hrm_convolution(const float *x, const float *weight, const float *bias, float *y, int channels, int made,
                                int groups, int x_channel, int x_line, int x_cell, int y_channel, int y_line, int y_cell,
                                hrm_grid g)
{
    const int read = channels / groups, each = made / groups;
    for (int o = 0; o < made; o++)
        for (int i = 0; i < g.out_height; i++)
            for (int j = 0; j < g.out_width; j++) {
                float sum = bias ? bias[o] : 0.0f;
                for (int c = 0; c < read; c++)
                    for (int k = 0; k < g.kernel_height; k++)
                        for (int l = 0; l < g.kernel_width; l++) {
                            const int line = i * g.stride_height - g.pad_height + k * g.dilation_height;
                            const int cell = j * g.stride_width - g.pad_width + l * g.dilation_width;
                            if (line < 0 || line >= g.height || cell < 0 || cell >= g.width)
                                continue;
                            sum += x[(o / each * read + c) * x_channel + line * x_line + cell * x_cell] *
                                   weight[((o * read + c) * g.kernel_height + k) * g.kernel_width + l];
                        }
                y[o * y_channel + i * y_line + j * y_cell] = sum;
            }
}

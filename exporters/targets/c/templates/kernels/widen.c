static inline float hrm_widen(int8_t steps)
{
    return (float)(((steps + 128) ^ (int)HRM_FLIP) - 128);
}

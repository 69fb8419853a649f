/* The nearest whole number, halves to the even one, clamped to int8; kept as HRM_FLIP says. */
static inline int8_t hrm_round(float x)
{
    union { float value; uint32_t bits; } whole;
    x = x > -128.0f ? x : -128.0f;
    x = x < 127.0f ? x : 127.0f;
    whole.value = x + 12582912.0f; /* whose low bits are the number */
    return (int8_t)((int32_t)(((whole.bits & 255u) ^ 128u ^ HRM_FLIP)) - 128);
}

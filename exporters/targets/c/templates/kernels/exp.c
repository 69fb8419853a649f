/* e to the power of x, to about one unit in the last place, in a form that compilers make vectors of. */
static inline float hrm_exp(float x)
{
    union { float value; uint32_t bits; } whole, power;
    float n, r, p;
    x = x < 88.0f ? x : 88.0f;
    x = x > -87.0f ? x : -87.0f;
    whole.value = x * 1.44269504f + 12582912.0f; /* to the nearest whole number, which its low bits then are */
    n = whole.value - 12582912.0f;
    r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    power.bits = (whole.bits << 23) + 0x3f800000u;
    return p * power.value;
}

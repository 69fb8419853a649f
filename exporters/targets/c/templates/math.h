/* The part of <math.h> that hrm.c may call, for targets without a C library. */
#ifndef HRM_MATH_H
#define HRM_MATH_H

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define sqrtf __builtin_sqrtf
#define floorf __builtin_floorf

float cosf(float x);
float erff(float x);
float logf(float x);
float powf(float x, float y);
float sinf(float x);
float tanhf(float x);

#endif

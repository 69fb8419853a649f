/* What runs before main: the vector table, memory as C wants it, the floating-point unit. */
#include <stdint.h>

extern uint32_t data_begin[], data_end[], data_stored[], bss_begin[], bss_end[], stack_end[];
int main(void);
void finish(int status);

void reset(void);
void reset(void)
{
    volatile uint32_t *const coprocessors = (volatile uint32_t *)0xE000ED88u;
    *coprocessors |= 0xFu << 20;
    __asm volatile("dsb\n isb");
    for (uint32_t *to = data_begin, *from = data_stored; to < data_end;)
        *to++ = *from++;
    for (uint32_t *to = bss_begin; to < bss_end;)
        *to++ = 0;
    finish(main());
}

static void fault(void)
{
    finish(2);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_end, (const void *)reset, (const void *)fault, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault,
};

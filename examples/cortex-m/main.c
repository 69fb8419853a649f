/* Solves the puzzles that were built in, and prints each answer with what it took. */
#include "hrm.h"
#include "puzzles.h"

static hrm_state state;

/* -- semihosting: what is printed goes to whoever runs or debugs this ------------------------------------- */

static int ask_host(int operation, const void *argument)
{
    register int r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void print(const char *text)
{
    ask_host(0x04, text); /* SYS_WRITE0 */
}

static void print_number(uint64_t number)
{
    char digits[24], *begin = digits + sizeof digits;
    *--begin = 0;
    do {
        *--begin = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    print(begin);
}

void finish(int status)
{
    const uint32_t reason[2] = {0x20026u, (uint32_t)status}; /* ADP_Stopped_ApplicationExit */
    ask_host(0x20, reason);                                  /* SYS_EXIT_EXTENDED */
    for (;;) {
    }
}

/* -- time -------------------------------------------------------------------------------------------------- */

#ifdef QEMU
/* With -icount shift=0 an instruction takes a nanosecond; the board's timer counts down at 25 MHz. */
#define UNIT "instructions"
static volatile uint32_t *const timer = (volatile uint32_t *)0x40000000u;

static void start_timer(void)
{
    timer[2] = timer[1] = 0xFFFFFFFFu;
    timer[0] = 1;
}

static uint64_t elapsed(void)
{
    return (uint64_t)(0xFFFFFFFFu - timer[1]) * 40u;
}
#else
/* The cycle counter of the core: 32 bits, nine seconds at 480 MHz. */
#define UNIT "cycles"
static void start_timer(void)
{
    *(volatile uint32_t *)0xE000EDFCu |= 1u << 24;
    *(volatile uint32_t *)0xE0001FB0u = 0xC5ACCE55u;
    *(volatile uint32_t *)0xE0001004u = 0;
    *(volatile uint32_t *)0xE0001000u |= 1;
}

static uint64_t elapsed(void)
{
    return *(volatile uint32_t *)0xE0001004u;
}
#endif

int main(void)
{
    int32_t answer[HRM_SEQ_LEN];
    int different = 0;
    for (int p = 0; p < PUZZLES; p++) {
        start_timer();
        const int32_t steps =
            hrm_solve(&state, questions[p], hrm_row(identifiers[p]), HRM_MAX_THINK_STEPS, HRM_HALT_LEARNED, answer);
        const uint64_t taken = elapsed();
        int same = steps == expected_steps[p];
        for (int i = 0; i < HRM_SEQ_LEN; i++) {
            print(hrm_vocabulary[answer[i]]);
            same &= answer[i] == expected[p][i];
        }
        print("  segments ");
        print_number((uint64_t)steps);
        print("  " UNIT " ");
        print_number(taken);
        print(same ? "  as expected\n" : "  NOT as expected\n");
        different += !same;
    }
    return different != 0;
}

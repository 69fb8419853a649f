/* Thinks over the puzzle on standard input and prints, for every segment, q and the logits. */
#include <stdio.h>

#include "hrm.h"

static hrm_state state;

int main(int argc, char **argv)
{
    int32_t tokens[HRM_SEQ_LEN], guess[HRM_SEQ_LEN], identifier = 0, segments = 0, steps;
    int read = scanf("%d %d", &segments, &identifier);
    (void)argc;
    (void)argv;
    for (int i = 0; i < HRM_SEQ_LEN; i++)
        read += scanf("%d", &tokens[i]);
    if (read != HRM_SEQ_LEN + 2)
        return 1;
#ifdef HRM_WEIGHTS_FILE
    static uint64_t weights[HRM_WEIGHT_BYTES / 8];
    FILE *const file = fopen(argv[1], "rb");
    if (argc != 2 || !file || fread(weights, 1, HRM_WEIGHT_BYTES, file) != HRM_WEIGHT_BYTES)
        return 1;
    fclose(file);
    weights[2]++;
    if (hrm_take_weights(&state, weights, HRM_WEIGHT_BYTES) ||
        hrm_solve(&state, tokens, identifier, segments, 0, guess) != 0)
        return 1;
    hrm_begin(&state, tokens, identifier);
    hrm_segment(&state);
    weights[2]--;
    if (hrm_take_weights(&state, weights, HRM_WEIGHT_BYTES - 1) || hrm_take_weights(&state, 0, HRM_WEIGHT_BYTES) ||
        !hrm_take_weights(&state, weights, HRM_WEIGHT_BYTES))
        return 1;
#endif
    hrm_begin(&state, tokens, identifier);
    for (int k = 0; k < segments; k++) {
        float q[2];
        hrm_segment(&state);
        hrm_q(&state, q);
        printf("%.9g %.9g", (double)q[0], (double)q[1]);
        for (int i = 0; i < HRM_SEQ_LEN * HRM_VOCAB; i++)
            printf(" %.9g", (double)hrm_logits(&state)[i]);
        printf("\n");
    }
    for (int mode = 0; mode < 3; mode++) {
        steps = hrm_solve(&state, tokens, identifier, segments, mode, guess);
        printf("%d", steps);
        for (int i = 0; i < HRM_SEQ_LEN; i++)
            printf(" %d", guess[i]);
        printf("\n");
    }
    return 0;
}

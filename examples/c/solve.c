/* Answers puzzles with a bundle of target c, and tests it on the bundle's own examples.

     solve BUNDLE/examples.json    answers the examples, and says whether they are equal to Python's
     solve PUZZLE...               answers puzzles; halts when the model says so

   Where the bundle has its weights in a file, that is mapped: it comes first, solve BUNDLE/weights.bin ... */

#define _POSIX_C_SOURCE 200112L
#include "hrm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HRM_WEIGHTS_FILE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#endif

static hrm_state state; /* all the memory that the model needs */

#ifdef HRM_WEIGHTS_FILE
/* Gives the state its weights, which stay in the file until they are read; whether they are this model's. */
static int take_weights(const char *path) {
  struct stat facts;
  int file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &facts)) return 0;
  size_t bytes = (size_t)facts.st_size;
  void *weights = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, 0);
  return weights != MAP_FAILED && hrm_take_weights(&state, weights, bytes);
}
#endif

static const char *symbol(int32_t token) { return token ? hrm_vocabulary[token] : "?"; } /* 0 is padding */

/* A board as tokens, a symbol a byte as in Sudokus and mazes; whether it is one. */
static int parse(const char *text, int32_t tokens[HRM_SEQ_LEN]) {
  if (strlen(text) != HRM_SEQ_LEN) return 0;
  for (int cell = 0; cell < HRM_SEQ_LEN; cell++) {
    for (tokens[cell] = 1; tokens[cell] < HRM_VOCAB; tokens[cell]++)
      if (symbol(tokens[cell])[0] == text[cell] && !symbol(tokens[cell])[1]) break;
    if (tokens[cell] == HRM_VOCAB) return 0;
  }
  return 1;
}

static void show(const int32_t answer[HRM_SEQ_LEN], int32_t steps) {
  float q[2];
  hrm_q(&state, q);
  for (int cell = 0; cell < HRM_SEQ_LEN; cell++) fputs(symbol(answer[cell]), stdout);
  printf(" %d %.9g %.9g\n", (int)steps, q[0], q[1]);
}

/* The tokens of a board, which stand a line each behind their name; whether all are there. */
static int tokens_of(FILE *file, int32_t tokens[HRM_SEQ_LEN]) {
  char line[64];
  int token;
  for (int cell = 0; cell < HRM_SEQ_LEN; cell++) {
    if (!fgets(line, sizeof line, file) || sscanf(line, "%d", &token) != 1) return 0;
    tokens[cell] = token;
  }
  return 1;
}

/* Whether a line begins the field of this name. A text that holds the same words begins another. */
static int begins(const char *line, const char *name) {
  line += strspn(line, " ");
  return !strncmp(line, name, strlen(name));
}

/* hrm-edge writes the file with one field a line, fields in alphabetical order: "steps" ends an example. */
static int selftest(const char *path) {
  static char line[1 << 16];
  int32_t question[HRM_SEQ_LEN], expected[HRM_SEQ_LEN], answer[HRM_SEQ_LEN];
  int asked = 0, equal = 0, identifier = 0, steps, known = 1;
  float q[2], wanted[2] = {0, 0}, away[1024], tolerance = 0;
  FILE *file = fopen(path, "r");
  if (!file) return perror(path), 2;
  while (fgets(line, sizeof line, file)) {
    sscanf(line, " \"puzzle_identifier\": %d", &identifier);
    sscanf(line, " \"q_tolerance\": %f", &tolerance);
    if (begins(line, "\"q\": [")) { /* its two values stand on the next lines */
      for (int i = 0; i < 2; i++)
        if (fgets(line, sizeof line, file)) wanted[i] = strtof(line, NULL);
    } else if (begins(line, "\"answer_tokens\": [")) {
      known = tokens_of(file, expected);
    } else if (begins(line, "\"question_tokens\": [")) {
      known &= tokens_of(file, question);
    } else if (sscanf(line, " \"steps\": %d", &steps) == 1 && asked < 1024) {
      int32_t taken = hrm_solve(&state, question, hrm_row(identifier), HRM_MAX_THINK_STEPS, HRM_HALT_LEARNED, answer);
      hrm_q(&state, q);
      int same = known && taken == steps && !memcmp(answer, expected, sizeof answer);
      away[asked++] = same ? fmaxf(fabsf(q[0] - wanted[0]), fabsf(q[1] - wanted[1])) : INFINITY;
    }
  }
  fclose(file);
  if (!asked) return fprintf(stderr, "solve: %s holds no examples\n", path), 2;
  for (int i = 0; i < asked; i++) equal += away[i] <= tolerance;
  printf("%s: %d of %d examples as in Python (answer, segments, q within %g)\n",
         equal == asked ? "equal" : "not equal", equal, asked, tolerance);
  return equal == asked ? 0 : 1;
}

int main(int count, char **arguments) {
  int32_t tokens[HRM_SEQ_LEN], answer[HRM_SEQ_LEN];
#ifdef HRM_WEIGHTS_FILE
  if (count < 2 || !take_weights(arguments[1]))
    return fputs("solve: give BUNDLE/" HRM_WEIGHTS_FILE " first, of the bundle that this was built with\n", stderr), 2;
  count--, arguments++;
#endif
  if (count < 2) return fputs("solve: give BUNDLE/examples.json, or puzzles\n", stderr), 2;
  if (count == 2 && strstr(arguments[1], ".json")) return selftest(arguments[1]);
  for (int i = 1; i < count; i++) {
    if (!parse(arguments[i], tokens)) return fprintf(stderr, "solve: puzzle %d is none of this task\n", i), 2;
    int32_t steps = hrm_solve(&state, tokens, hrm_row(0), HRM_MAX_THINK_STEPS, HRM_HALT_LEARNED, answer);
    show(answer, steps);
  }
  return 0;
}

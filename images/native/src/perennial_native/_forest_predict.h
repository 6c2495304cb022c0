/* Which way a block of rows goes through the forest. */
#ifndef PERENNIAL_FOREST_PREDICT_H
#define PERENNIAL_FOREST_PREDICT_H

#include "_forest_deep.h"
#include "_forest_lanes.h"
#include "_forest_transform.h"

enum { STACK = 8192 };

/* Up to AT_ONCE rows: floats to margins. */
static void few_rows(const Forest *forest, const float *rows, Py_ssize_t count, uint8_t *bytes, float *margins) {
    if (forest->form == DEEP_TREES && count == AT_ONCE) {
        for (Py_ssize_t i = 0; i < count; i++) encode_row(forest, rows + i * forest->features, bytes + i * forest->columns);
        deep_rows(forest, bytes, margins);
        return;
    }
    for (Py_ssize_t i = 0; i < count; i++, rows += forest->features, margins += forest->groups_count) {
        if (forest->form == PLAIN) {
            walk_row(forest, rows, margins);
            continue;
        }
        encode_row(forest, rows, bytes);
        if (forest->form == PERFECT_TREES)
            perfect_row(forest, bytes, margins);
        else
            deep_row(forest, bytes, margins);
    }
}

static void predict_blocks(const Forest *forest, const float *rows, Py_ssize_t count, double *out, float *margins, uint8_t *bytes) {
    const Py_ssize_t groups = forest->groups_count;
    for (Py_ssize_t done = 0, block; done < count; done += block) {
        Py_ssize_t left = count - done;
        int lanes = forest->lanes && left >= LANES_FROM, most = lanes ? WIDTH : AT_ONCE;
        block = left < most ? left : most;
        for (Py_ssize_t i = 0; i < block; i++) memcpy(margins + i * groups, forest->base, sizeof(float) * (size_t)groups);
        if (lanes)
            lanes_rows(forest, rows + done * forest->features, block, (int8_t *)bytes, margins);
        else
            few_rows(forest, rows + done * forest->features, block, bytes, margins);
        for (Py_ssize_t i = 0; i < block; i++) transform_row(forest, margins + i * groups, out + (done + i) * forest->outputs);
    }
}

/* float[count, features] to double[count, outputs]; -1 where memory has run out. Touches no Python object. */
static int predict_rows(const Forest *forest, const float *rows, Py_ssize_t count, double *out) {
    enum { LINE = 64 };
    _Alignas(LINE) char stack[STACK];
    size_t most = forest->lanes && count >= LANES_FROM ? WIDTH : count < AT_ONCE ? (size_t)count : AT_ONCE;
    size_t for_margins = (most * sizeof(float) * (size_t)forest->groups_count + LINE - 1) & ~(size_t)(LINE - 1);
    size_t needed = for_margins + most * (size_t)forest->columns;
    char *taken = needed <= STACK ? NULL : PyMem_RawMalloc(needed + LINE), *space = stack;
    if (needed > STACK) {
        if (taken == NULL) return -1;
        space = (char *)(((uintptr_t)taken + LINE - 1) & ~(uintptr_t)(LINE - 1));
    }
    if (forest->lanes && count >= LANES_FROM) memset(space, 0, for_margins); /* the last block may not fill its lanes */
    predict_blocks(forest, rows, count, out, (float *)space, (uint8_t *)(space + for_margins));
    PyMem_RawFree(taken);
    return 0;
}

#endif

/* What a compiled forest holds. All arrays are borrowed from Python buffers, and checked once, when the forest is made. */
#ifndef PERENNIAL_FOREST_COMMON_H
#define PERENNIAL_FOREST_COMMON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { MISSING_LEFT = 1, BY_CATEGORY = 2 };
enum transform { IDENTITY, SIGMOID, EXP, HINGE, SOFTPROB, SOFTMAX, TRANSFORMS };
enum array { ROOTS, GROUPS, FEATURE, THRESHOLD, LEFT, FLAGS, SET, SET_START, SET_BITS, LEAVES, BASE, ARRAYS };

typedef struct {
    PyObject_HEAD
    Py_buffer views[ARRAYS];
    Py_ssize_t features, groups_count, outputs, width, trees;
    enum transform transform;
    const int32_t *roots, *groups, *feature, *left, *set;
    const float *threshold, *leaves, *base;
    const uint8_t *flags;
    const int64_t *set_start;
    const uint32_t *set_bits;
} Forest;

#endif

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
enum array {
    ROOTS, GROUPS, FEATURE, THRESHOLD, LEFT, FLAGS, SET, SET_START, SET_BITS, LEAVES, BASE,
    NUMBER, CUT_START, CUTS, COLUMN_START, SHIFT, MISSING, CATEGORY, CATEGORY_COLUMN, CATEGORY_SIZE, TABLE_START, TABLES,
    NARROW, WIDE, LANE_COLUMN, LANE_CUT, PERFECT_LEAF, DEEP, ARRAYS
};

/* How the trees are walked: plainly over floats; over bytes, through trees padded to perfect ones, or through pointers. */
enum form { PLAIN, PERFECT_TREES, DEEP_TREES };

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
    /* the fast form: see flat.FAST */
    enum form form;
    int levels, lanes;
    Py_ssize_t columns, numbers, categories;
    const int32_t *number, *cuts, *column_start, *shift, *category, *category_column, *category_size;
    const int64_t *cut_start, *table_start;
    const uint8_t *missing, *tables;
    const uint16_t *narrow, *lane_column; /* narrow is NULL where wide is not */
    const uint32_t *wide;
    const int8_t *lane_cut;
    const float *perfect_leaf;
    const uint64_t *deep;
} Forest;

#endif

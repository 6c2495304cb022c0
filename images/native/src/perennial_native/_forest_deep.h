/* Trees of any depth, over bytes: eight cursors step together, and rest in a leaf, which is its own left child. */
#ifndef PERENNIAL_FOREST_DEEP_H
#define PERENNIAL_FOREST_DEEP_H

#include "_forest_perfect.h"

/* From roots to leaves; cursor i reads the row at bytes + i * stride. */
static ALWAYS_INLINE void descend(const Forest *forest, const uint8_t *bytes, Py_ssize_t stride, uint32_t *at) {
    uint32_t moved;
    do {
        for (int step = 0; step < 4; step++) {
            moved = 0;
            for (int i = 0; i < AT_ONCE; i++) {
                uint64_t node = forest->deep[at[i]];
                uint32_t next = (uint32_t)node + (bytes[i * stride + (node >> 32 & 0xffff)] > node >> 48);
                moved |= next ^ at[i];
                at[i] = next;
            }
        }
    } while (moved);
}

static inline void add_leaf(const Forest *forest, Py_ssize_t tree, uint32_t node, float *margins) {
    const float *values = forest->leaves + (-1 - (Py_ssize_t)forest->left[node]) * forest->width;
    float *to = margins + forest->groups[tree];
    for (Py_ssize_t i = 0; i < forest->width; i++) to[i] += values[i];
}

/* One row, eight trees at a time. */
static void deep_row(const Forest *forest, const uint8_t *bytes, float *margins) {
    for (Py_ssize_t tree = 0; tree < forest->trees; tree += AT_ONCE) {
        Py_ssize_t count = forest->trees - tree < AT_ONCE ? forest->trees - tree : AT_ONCE;
        uint32_t at[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) at[i] = (uint32_t)forest->roots[i < count ? tree + i : tree];
        descend(forest, bytes, 0, at);
        for (Py_ssize_t i = 0; i < count; i++) add_leaf(forest, tree + i, at[i], margins);
    }
}

/* Eight rows, tree by tree: a tree is fetched once for all of them. */
static void deep_rows(const Forest *forest, const uint8_t *bytes, float *margins) {
    for (Py_ssize_t tree = 0; tree < forest->trees; tree++) {
        uint32_t at[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) at[i] = (uint32_t)forest->roots[tree];
        descend(forest, bytes, forest->columns, at);
        for (int i = 0; i < AT_ONCE; i++) add_leaf(forest, tree, at[i], margins + i * forest->groups_count);
    }
}

#endif

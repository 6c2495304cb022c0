/* The plain way: from the root to a leaf, one tree after the other. Knows every kind of split; the yardstick of the fast ways. */
#ifndef PERENNIAL_FOREST_WALK_H
#define PERENNIAL_FOREST_WALK_H

#include "_forest_common.h"

#define OUT_OF_RANGE 16777216.0f /* XGBoost takes no category from here on */

/* Whether a category is in the set that goes right. Categories that the set cannot hold are in none. */
static inline int in_set(const uint32_t *bits, int64_t words, float value) {
    if (!(value >= 0.0f && value < OUT_OF_RANGE)) return 0;
    int32_t category = (int32_t)value;
    return category / 32 < words && (bits[category / 32] >> (category % 32) & 1);
}

static inline int goes_right(const Forest *forest, int32_t node, float value) {
    uint8_t flags = forest->flags[node];
    if (value != value) return !(flags & MISSING_LEFT);
    if (!(flags & BY_CATEGORY)) return !(value < forest->threshold[node]);
    const int64_t *start = forest->set_start + forest->set[node];
    return in_set(forest->set_bits + start[0], start[1] - start[0], value);
}

/* The leaf of one row in one tree. */
static inline int32_t leaf_of(const Forest *forest, int32_t node, const float *row) {
    int32_t left;
    while ((left = forest->left[node]) >= 0) node = left + goes_right(forest, node, row[forest->feature[node]]);
    return -1 - left;
}

/* Adds all trees to the margins of one row, float[groups], in the order of training: so are XGBoost's sums rounded. */
static void walk_row(const Forest *forest, const float *row, float *margins) {
    for (Py_ssize_t tree = 0; tree < forest->trees; tree++) {
        const float *values = forest->leaves + (Py_ssize_t)leaf_of(forest, forest->roots[tree], row) * forest->width;
        float *to = margins + forest->groups[tree];
        for (Py_ssize_t i = 0; i < forest->width; i++) to[i] += values[i];
    }
}

#endif

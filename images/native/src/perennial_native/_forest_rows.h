/* Rows of floats to rows of bytes: see columns.py for what the bytes mean. */
#ifndef PERENNIAL_FOREST_ROWS_H
#define PERENNIAL_FOREST_ROWS_H

#include "_forest_check_fast.h"
#include "_forest_walk.h"

/* Floats in their order as whole numbers; -0.0 becomes 0.0 first. NaN is anything. */
static inline int32_t key_of(float value) {
    int32_t bits;
    value += 0.0f;
    memcpy(&bits, &value, sizeof bits);
    return bits ^ (bits >> 31 & 0x7fffffff);
}

/* How many of the cuts are not above the key. There is one cut less than a power of two. */
static inline int32_t rank_of(const int32_t *cuts, int64_t count, int32_t key) {
    int32_t rank = 0;
    for (int32_t step = (int32_t)((count + 1) >> 1); step > 0; step >>= 1) rank += cuts[rank + step - 1] <= key ? step : 0;
    return rank;
}

static inline uint8_t byte_of(int32_t rank, int32_t shift) {
    rank -= shift;
    rank = rank < 0 ? 0 : rank;
    return (uint8_t)(rank > NEVER ? NEVER : rank);
}

/* The row of a table that a category has. */
static inline const uint8_t *table_row(const Forest *forest, Py_ssize_t place, float value) {
    int32_t size = forest->category_size[place], at = size;
    if (value != value)
        at = size + 1;
    else if (value >= 0.0f && value < OUT_OF_RANGE && (int32_t)value < size)
        at = (int32_t)value;
    Py_ssize_t stride = forest->category_column[place + 1] - forest->category_column[place];
    return forest->tables + forest->table_start[place] + at * stride;
}

/* One row to uint8[columns]. */
static void encode_row(const Forest *forest, const float *row, uint8_t *bytes) {
    for (Py_ssize_t i = 0; i < forest->numbers; i++) {
        float value = row[forest->number[i]];
        int missing = value != value;
        int64_t start = forest->cut_start[i];
        int32_t rank = rank_of(forest->cuts + start, forest->cut_start[i + 1] - start, key_of(value));
        for (int32_t column = forest->column_start[i]; column < forest->column_start[i + 1]; column++)
            bytes[column] = missing ? forest->missing[column] : byte_of(rank, forest->shift[column]);
    }
    for (Py_ssize_t i = 0; i < forest->categories; i++) {
        int32_t first = forest->category_column[i], end = forest->category_column[i + 1];
        memcpy(bytes + first, table_row(forest, i, row[forest->category[i]]), (size_t)(end - first));
    }
}

#endif

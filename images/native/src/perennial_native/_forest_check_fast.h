/* The fast form, checked: no byte of a row is beyond NEVER, no column beyond the row, no way down without an end. */
#ifndef PERENNIAL_FOREST_CHECK_FAST_H
#define PERENNIAL_FOREST_CHECK_FAST_H

#include "_forest_check.h"

enum { NEVER = 254, NEVER_DEEP = 255, MOST_COLUMNS = 65535, LANES = 16, MOST_LEVELS = 8 };

static int check_numbers(Forest *forest) {
    forest->numbers = LENGTH(NUMBER);
    if (LENGTH(CUT_START) != forest->numbers + 1 || LENGTH(COLUMN_START) != forest->numbers + 1 || LENGTH(MISSING) != LENGTH(SHIFT))
        return damaged("its arrays of columns differ in length");
    if (forest->cut_start[0] != 0 || forest->cut_start[forest->numbers] != LENGTH(CUTS))
        return damaged("thresholds end elsewhere");
    if (forest->column_start[0] != 0 || forest->column_start[forest->numbers] != LENGTH(SHIFT))
        return damaged("columns end elsewhere");
    for (Py_ssize_t i = 0; i < forest->numbers; i++) {
        int64_t cuts = forest->cut_start[i + 1] - forest->cut_start[i];
        if (cuts < 1 || cuts > LENGTH(CUTS) || (cuts & (cuts + 1)) != 0) return damaged("thresholds are not one less than a power of two");
        if (forest->column_start[i] > forest->column_start[i + 1]) return damaged("columns end before they begin");
        if (forest->number[i] < 0 || forest->number[i] >= forest->features)
            return damaged("a column reads a feature that is not there");
    }
    for (Py_ssize_t i = 0; i < LENGTH(SHIFT); i++)
        if (forest->missing[i] > NEVER || forest->shift[i] < 0) return damaged("a column has another missing value");
    return 0;
}

static int check_categories(Forest *forest) {
    Py_ssize_t count = forest->categories = LENGTH(CATEGORY);
    if (LENGTH(CATEGORY_COLUMN) != count + 1 || LENGTH(TABLE_START) != count + 1 || LENGTH(CATEGORY_SIZE) != count)
        return damaged("its arrays of categories differ in length");
    if (forest->category_column[0] != LENGTH(SHIFT) || forest->table_start[0] != 0 || forest->table_start[count] != LENGTH(TABLES))
        return damaged("tables of categories end elsewhere");
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t columns = (int64_t)forest->category_column[i + 1] - forest->category_column[i];
        int64_t size = forest->table_start[i + 1] - forest->table_start[i];
        if (columns < 1 || columns % LANES != 0 || forest->category_column[i + 1] > MOST_COLUMNS)
            return damaged("a table has other columns");
        if (forest->category_size[i] < 0 || size != ((int64_t)forest->category_size[i] + 2) * columns)
            return damaged("a table has other rows");
        if (forest->category[i] < 0 || forest->category[i] >= forest->features)
            return damaged("a table reads a feature that is not there");
    }
    for (Py_ssize_t i = 0; i < LENGTH(TABLES); i++)
        if (forest->tables[i] > 1) return damaged("a table says neither left nor right");
    forest->columns = forest->category_column[count];
    return 0;
}

/* All of them [trees, 2**levels]; narrow or wide is empty. */
static int check_perfect_size(Forest *forest) {
    const Py_buffer *leaves = &forest->views[PERFECT_LEAF];
    if (leaves->ndim != 2 || leaves->shape[0] != forest->trees) return damaged("perfect trees are no table");
    for (forest->levels = 1; forest->levels < MOST_LEVELS && (Py_ssize_t)1 << forest->levels < leaves->shape[1];) forest->levels++;
    if (leaves->shape[1] != (Py_ssize_t)1 << forest->levels) return damaged("perfect trees have another size");
    Py_ssize_t size = LENGTH(PERFECT_LEAF);
    if (LENGTH(LANE_COLUMN) != size || LENGTH(LANE_CUT) != size || LENGTH(NARROW) + LENGTH(WIDE) != size ||
        (LENGTH(NARROW) != 0 && LENGTH(WIDE) != 0))
        return damaged("perfect trees differ in size");
    return forest->width == 1 ? 0 : damaged("perfect trees have leaves of several values");
}

static int check_perfect(Forest *forest) {
    if (check_perfect_size(forest) < 0) return -1;
    for (Py_ssize_t i = 0; i < LENGTH(PERFECT_LEAF); i++) {
        uint32_t node = forest->narrow ? forest->narrow[i] : forest->wide[i], bits = forest->narrow ? 8 : 16;
        uint32_t cut = node >> bits, column = node & ((1u << bits) - 1);
        if (cut > NEVER || (int)cut + 1 - 128 != forest->lane_cut[i]) return damaged("a perfect tree compares with another rank");
        if (column != forest->lane_column[i] || column >= forest->columns)
            return damaged("a perfect tree reads a column that is not there");
    }
    return 0;
}

static int check_deep(const Forest *forest) {
    if (LENGTH(DEEP) != LENGTH(LEFT)) return damaged("its arrays of nodes differ in length");
    for (Py_ssize_t i = 0; i < LENGTH(DEEP); i++) {
        Py_ssize_t left = (Py_ssize_t)(forest->deep[i] & 0xffffffff), column = forest->deep[i] >> 32 & 0xffff;
        int leaf = forest->left[i] < 0;
        if (left != (leaf ? i : forest->left[i])) return damaged("a node has other children");
        if (forest->deep[i] >> 48 > NEVER_DEEP || (leaf && forest->deep[i] >> 48 != NEVER_DEEP))
            return damaged("a node compares with another rank");
        if (column >= forest->columns) return damaged("a node reads a column that is not there");
    }
    return 0;
}

/* After check_trees. */
static int check_fast(Forest *forest) {
    forest->form = LENGTH(PERFECT_LEAF) > 0 ? PERFECT_TREES : LENGTH(DEEP) > 0 ? DEEP_TREES : PLAIN;
    if (forest->form == PLAIN) return 0; /* columns stay 0 */
    if (check_numbers(forest) < 0 || check_categories(forest) < 0) return -1;
    if (forest->columns < 1) forest->columns = 1; /* trees of one leaf each: nobody's column */
    return forest->form == PERFECT_TREES ? check_perfect(forest) : check_deep(forest);
}

#endif

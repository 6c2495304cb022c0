/* A flat forest may come from a damaged file: everything that is ever followed is checked here, once. */
#ifndef PERENNIAL_FOREST_CHECK_H
#define PERENNIAL_FOREST_CHECK_H

#include "_forest_common.h"

/* Sets ValueError. */
static int damaged(const char *what) {
    PyErr_Format(PyExc_ValueError, "the flattened forest is damaged: %s; flatten the model again", what);
    return -1;
}

typedef struct {
    const char *name;
    char kind; /* i, u or f */
    Py_ssize_t size;
} ArrayType;

static const ArrayType ARRAY_TYPES[ARRAYS] = {
    [ROOTS] = {"roots", 'i', 4},         [GROUPS] = {"groups", 'i', 4},     [FEATURE] = {"feature", 'i', 4},
    [THRESHOLD] = {"threshold", 'f', 4}, [LEFT] = {"left", 'i', 4},         [FLAGS] = {"flags", 'u', 1},
    [SET] = {"set", 'i', 4},             [SET_START] = {"set_start", 'i', 8}, [SET_BITS] = {"set_bits", 'u', 4},
    [LEAVES] = {"leaves", 'f', 4},       [BASE] = {"base", 'f', 4},
    [NUMBER] = {"number", 'i', 4},       [CUT_START] = {"cut_start", 'i', 8},
    [CUTS] = {"cuts", 'i', 4},           [COLUMN_START] = {"column_start", 'i', 4},
    [SHIFT] = {"shift", 'i', 4},         [MISSING] = {"missing", 'u', 1},
    [CATEGORY] = {"category", 'i', 4},   [CATEGORY_COLUMN] = {"category_column", 'i', 4},
    [CATEGORY_SIZE] = {"category_size", 'i', 4}, [TABLE_START] = {"table_start", 'i', 8},
    [TABLES] = {"tables", 'u', 1},       [NARROW] = {"narrow", 'u', 2},
    [WIDE] = {"wide", 'u', 4},           [LANE_COLUMN] = {"lane_column", 'u', 2},
    [LANE_CUT] = {"lane_cut", 'i', 1},   [PERFECT_LEAF] = {"perfect_leaf", 'f', 4},
    [DEEP] = {"deep", 'u', 8},
};

#define LENGTH(array) (forest->views[array].len / forest->views[array].itemsize)

static char kind_of(const char *format) {
    if (format == NULL) return 'u';
    if (*format == '@' || *format == '=' || *format == '<') format++; /* '<' is native where this is little-endian; numpy says '>' else */
    if (*format == '\0' || format[1] != '\0') return '?';
    if (strchr("bhilq", *format)) return 'i';
    if (strchr("BHILQ", *format)) return 'u';
    return strchr("fd", *format) ? 'f' : '?';
}

/* The array of that name in the mapping, into view. */
static int get_array(PyObject *arrays, const ArrayType *type, Py_buffer *view) {
    PyObject *array = PyMapping_GetItemString(arrays, type->name);
    if (array == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError)) return -1;
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "the flattened forest has no array %s; flatten the model again", type->name);
        return -1;
    }
    int got = PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT);
    Py_DECREF(array);
    if (got < 0) {
        view->obj = NULL;
        return -1;
    }
    if (view->itemsize == type->size && kind_of(view->format) == type->kind) return 0;
    PyErr_Format(PyExc_ValueError, "the flattened forest's %s has items of type %s; flatten the model again", type->name,
                 view->format ? view->format : "?");
    return -1;
}

static int check_sets(const Forest *forest, Py_ssize_t sets, Py_ssize_t words) {
    if (sets < 0 || forest->set_start[0] != 0 || forest->set_start[sets] != words) return damaged("sets of categories end elsewhere");
    for (Py_ssize_t i = 0; i < sets; i++)
        if (forest->set_start[i] > forest->set_start[i + 1]) return damaged("a set of categories ends before it begins");
    return 0;
}

/* A child comes after its parent, so that every way down ends. */
static int check_node(const Forest *forest, Py_ssize_t node, Py_ssize_t nodes, Py_ssize_t leaves, Py_ssize_t sets) {
    int32_t left = forest->left[node];
    if (left < 0) return -1 - (Py_ssize_t)left < leaves ? 0 : damaged("a node names a leaf that is not there");
    if (left <= node || left + (Py_ssize_t)1 >= nodes) return damaged("a node's child is not after it");
    if (forest->feature[node] < 0 || forest->feature[node] >= forest->features)
        return damaged("a node splits by a feature that is not there");
    int categories = forest->flags[node] & BY_CATEGORY;
    if (categories && (forest->set[node] < 0 || forest->set[node] >= sets)) return damaged("a split's set of categories is not there");
    if (!categories && forest->threshold[node] != forest->threshold[node]) return damaged("a threshold is not a number");
    return 0;
}

static int check_trees(Forest *forest) {
    Py_ssize_t nodes = LENGTH(LEFT), sets = LENGTH(SET_START) - 1;
    if (LENGTH(FEATURE) != nodes || LENGTH(THRESHOLD) != nodes || LENGTH(FLAGS) != nodes || LENGTH(SET) != nodes)
        return damaged("its arrays of nodes differ in length");
    forest->trees = LENGTH(ROOTS);
    if (LENGTH(GROUPS) != forest->trees) return damaged("its arrays of trees differ in length");
    forest->groups_count = LENGTH(BASE);
    if (forest->views[LEAVES].ndim != 2) return damaged("its leaves are no table");
    forest->width = forest->views[LEAVES].shape[1];
    Py_ssize_t leaves = forest->views[LEAVES].shape[0];
    if (forest->groups_count < 1 || (forest->width != 1 && forest->width != forest->groups_count))
        return damaged("its leaves hold more or fewer values than it has outputs");
    if (forest->outputs != (forest->transform == SOFTMAX ? 1 : forest->groups_count)) return damaged("it has another number of outputs");
    if (check_sets(forest, sets, LENGTH(SET_BITS)) < 0) return -1;
    for (Py_ssize_t tree = 0; tree < forest->trees; tree++) {
        if (forest->roots[tree] < 0 || forest->roots[tree] >= nodes) return damaged("a tree's root is not there");
        if (forest->groups[tree] < 0 || forest->groups[tree] + forest->width > forest->groups_count)
            return damaged("a tree adds to an output that is not there");
    }
    for (Py_ssize_t node = 0; node < nodes; node++)
        if (check_node(forest, node, nodes, leaves, sets) < 0) return -1;
    return 0;
}

#endif

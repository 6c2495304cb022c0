/* One row through perfect trees, eight at a time: their loads do not wait for each other, and nothing branches. */
#ifndef PERENNIAL_FOREST_PERFECT_H
#define PERENNIAL_FOREST_PERFECT_H

#include "_forest_rows.h"

#if defined(__GNUC__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif

enum { AT_ONCE = 8 };

/* One step down in node `node`: a column and, above `bits`, a cut. */
#define STEP(at, node, bits) ((at) + (at) + (bytes[(node) & ((1u << (bits)) - 1)] > (uint8_t)((node) >> (bits))))

/* Nodes of 16 bits where there are at most 256 columns, for half of the cache lines; else of 32. */
#define PERFECT_TREES_OF(name, type, bits)                                                                                          \
    static ALWAYS_INLINE void name(const Forest *forest, const type *nodes, const uint8_t *bytes, int levels, float *margins) {     \
        const Py_ssize_t size = (Py_ssize_t)1 << levels, together = forest->trees - forest->trees % AT_ONCE;                        \
        const float *leaves = forest->perfect_leaf - size; /* places at the bottom count from size */                               \
        const int32_t *groups = forest->groups;                                                                                     \
        const int one = forest->groups_count == 1;                                                                                  \
        float margin = margins[0];                                                                                                  \
        for (Py_ssize_t tree = 0; tree < together; tree += AT_ONCE, nodes += AT_ONCE * size, leaves += AT_ONCE * size) {            \
            uint32_t at[AT_ONCE] = {1, 1, 1, 1, 1, 1, 1, 1};                                                                        \
            _Pragma("GCC unroll 8") for (int level = 0; level < levels; level++)                                                    \
                _Pragma("GCC unroll 8") for (int i = 0; i < AT_ONCE; i++) at[i] = STEP(at[i], nodes[i * size + at[i]], bits);       \
            if (one)                                                                                                                \
                _Pragma("GCC unroll 8") for (int i = 0; i < AT_ONCE; i++) margin += leaves[i * size + at[i]];                       \
            else                                                                                                                    \
                for (int i = 0; i < AT_ONCE; i++) margins[groups[tree + i]] += leaves[i * size + at[i]];                            \
        }                                                                                                                           \
        if (one) margins[0] = margin;                                                                                               \
        for (Py_ssize_t tree = together; tree < forest->trees; tree++, nodes += size, leaves += size) {                             \
            uint32_t at = 1;                                                                                                        \
            for (int level = 0; level < levels; level++) at = STEP(at, nodes[at], bits);                                            \
            margins[groups[tree]] += leaves[at];                                                                                    \
        }                                                                                                                           \
    }

PERFECT_TREES_OF(narrow_trees, uint16_t, 8)
PERFECT_TREES_OF(wide_trees, uint32_t, 16)

/* A number of levels that the compiler knows: loops become straight lines. */
#define PERFECT_ROW_OF(levels)                                                          \
    static void perfect_row_##levels(const Forest *forest, const uint8_t *bytes, float *margins) { \
        if (forest->narrow != NULL)                                                     \
            narrow_trees(forest, forest->narrow, bytes, levels, margins);               \
        else                                                                            \
            wide_trees(forest, forest->wide, bytes, levels, margins);                   \
    }

PERFECT_ROW_OF(1)
PERFECT_ROW_OF(2)
PERFECT_ROW_OF(3)
PERFECT_ROW_OF(4)
PERFECT_ROW_OF(5)
PERFECT_ROW_OF(6)
PERFECT_ROW_OF(7)
PERFECT_ROW_OF(8)

/* Adds all trees to the margins of one row of bytes. */
static inline void perfect_row(const Forest *forest, const uint8_t *bytes, float *margins) {
    static void (*const ROW_OF[MOST_LEVELS + 1])(const Forest *, const uint8_t *, float *) = {
        NULL,          perfect_row_1, perfect_row_2, perfect_row_3, perfect_row_4,
        perfect_row_5, perfect_row_6, perfect_row_7, perfect_row_8,
    };
    ROW_OF[forest->levels](forest, bytes, margins);
}

#endif

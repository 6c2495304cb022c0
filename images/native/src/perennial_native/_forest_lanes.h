/* Thirty-two rows at once through perfect trees, one byte of a register each (AVX2, where the processor has it).
 *
 * Rows are turned: a column is 32 bytes, one of each row. All splits of a tree are compared for all rows, and selected from the bottom up;
 * that is more comparisons than the rows need, but each is one instruction for 32 of them, and nothing is looked up but the leaves. */
#ifndef PERENNIAL_FOREST_LANES_H
#define PERENNIAL_FOREST_LANES_H

#include "_forest_perfect.h"

enum { WIDTH = 32, LANES_FROM = 10, MOST_LANE_COLUMNS = 8192 };

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX2_INLINE static inline __attribute__((always_inline, target("avx2")))

static int can_lanes(const Forest *forest) {
    return forest->form == PERFECT_TREES && forest->columns <= MOST_LANE_COLUMNS && __builtin_cpu_supports("avx2");
}

/* -1 in the rows that go left of node i. Signed bytes: registers know no others. */
AVX2_INLINE __m256i left_of(const uint16_t *columns, const int8_t *cuts, const int8_t *lanes, int i) {
    return _mm256_cmpgt_epi8(_mm256_set1_epi8(cuts[i]), _mm256_load_si256((const __m256i *)(lanes + (size_t)columns[i] * WIDTH)));
}

/* Below node i, by row, the place of the leaf: in the last level, 2i or 2i + 1. Only the low bits are right. */
AVX2_INLINE __m256i leaf_1(const uint16_t *columns, const int8_t *cuts, const int8_t *lanes, int i) {
    return _mm256_add_epi8(_mm256_set1_epi8((char)(2 * i + 1)), left_of(columns, cuts, lanes, i));
}

#define LEAF_OF(levels, below)                                                                                       \
    AVX2_INLINE __m256i leaf_##levels(const uint16_t *columns, const int8_t *cuts, const int8_t *lanes, int i) {     \
        __m256i left = leaf_##below(columns, cuts, lanes, 2 * i), right = leaf_##below(columns, cuts, lanes, 2 * i + 1); \
        return _mm256_blendv_epi8(right, left, left_of(columns, cuts, lanes, i));                                    \
    }

LEAF_OF(2, 1)
LEAF_OF(3, 2)
LEAF_OF(4, 3)
LEAF_OF(5, 4)
LEAF_OF(6, 5)
LEAF_OF(7, 6)
LEAF_OF(8, 7)

/* Four trees, then their leaves: the lookups of one row follow each other in a register. */
#define LANES_OF(levels)                                                                                             \
    AVX2 static void lanes_##levels(const Forest *forest, const int8_t *lanes, float *margins) {                     \
        enum { SIZE = 1 << (levels), TREES = 4 };                                                                    \
        _Alignas(32) uint8_t places[TREES][WIDTH];                                                                   \
        const __m256i mask = _mm256_set1_epi8((char)(SIZE - 1));                                                     \
        const Py_ssize_t groups = forest->groups_count;                                                              \
        for (Py_ssize_t tree = 0; tree < forest->trees; tree += TREES) {                                             \
            int count = forest->trees - tree < TREES ? (int)(forest->trees - tree) : TREES;                          \
            const float *leaves = forest->perfect_leaf + tree * SIZE;                                                \
            for (int i = 0; i < count; i++) {                                                                        \
                const Py_ssize_t first = (tree + i) * SIZE;                                                          \
                __m256i place = leaf_##levels(forest->lane_column + first, forest->lane_cut + first, lanes, 1);      \
                _mm256_store_si256((__m256i *)places[i], _mm256_and_si256(place, mask));                             \
            }                                                                                                        \
            if (count == TREES && groups == 1)                                                                       \
                for (int row = 0; row < WIDTH; row++)                                                                \
                    margins[row] = margins[row] + leaves[places[0][row]] + leaves[SIZE + places[1][row]] +           \
                                   leaves[2 * SIZE + places[2][row]] + leaves[3 * SIZE + places[3][row]];            \
            else                                                                                                     \
                for (int i = 0; i < count; i++)                                                                      \
                    for (int row = 0; row < WIDTH; row++)                                                            \
                        margins[row * groups + forest->groups[tree + i]] += leaves[i * SIZE + places[i][row]];       \
        }                                                                                                            \
    }

LANES_OF(1)
LANES_OF(2)
LANES_OF(3)
LANES_OF(4)
LANES_OF(5)
LANES_OF(6)
LANES_OF(7)
LANES_OF(8)

/* A feature's bytes of all rows: ranks once, then a few instructions per column. */
AVX2 static void encode_number(const Forest *forest, const float *rows, const int *row_of, Py_ssize_t i, int8_t *lanes) {
    int32_t ranks[WIDTH], gone[WIDTH];
    int64_t start = forest->cut_start[i], count = forest->cut_start[i + 1] - start;
    for (int row = 0; row < WIDTH; row++) {
        float value = rows[row_of[row] * forest->features + forest->number[i]];
        gone[row] = -(value != value);
        ranks[row] = rank_of(forest->cuts + start, count, key_of(value));
    }
    for (int32_t column = forest->column_start[i]; column < forest->column_start[i + 1]; column++) {
        int32_t shift = forest->shift[column], missing = forest->missing[column];
        int8_t *to = lanes + (Py_ssize_t)column * WIDTH;
        for (int row = 0; row < WIDTH; row++)
            to[row] = (int8_t)(((gone[row] & missing) | (~gone[row] & byte_of(ranks[row], shift))) - 128);
    }
}

/* 16 rows of 16 bytes, turned: 4 times over, each piece is interleaved with the one 8 further on. */
AVX2_INLINE void turn(const uint8_t *const *from, int32_t offset, int8_t *to) {
    __m128i now[LANES], next[LANES];
    for (int i = 0; i < LANES; i++) now[i] = _mm_loadu_si128((const __m128i *)(from[i] + offset));
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = _mm_unpacklo_epi8(now[i], now[i + LANES / 2]);
            next[2 * i + 1] = _mm_unpackhi_epi8(now[i], now[i + LANES / 2]);
        }
        memcpy(now, next, sizeof now);
    }
    const __m128i signed_ = _mm_set1_epi8(-128);
    for (int i = 0; i < LANES; i++) _mm_store_si128((__m128i *)(to + i * WIDTH), _mm_xor_si128(now[i], signed_));
}

AVX2 static void encode_category(const Forest *forest, const float *rows, const int *row_of, Py_ssize_t i, int8_t *lanes) {
    const uint8_t *from[WIDTH];
    int32_t first = forest->category_column[i], columns = forest->category_column[i + 1] - first;
    for (int row = 0; row < WIDTH; row++)
        from[row] = table_row(forest, i, rows[row_of[row] * forest->features + forest->category[i]]);
    for (int32_t column = 0; column < columns; column += LANES)
        for (int half = 0; half < WIDTH; half += LANES) turn(from + half, column, lanes + (Py_ssize_t)(first + column) * WIDTH + half);
}

/* Adds all trees to the margins of up to 32 rows; float[32][groups], those beyond count are nobody's. Lanes: 32 bytes a column, aligned. */
static void lanes_rows(const Forest *forest, const float *rows, Py_ssize_t count, int8_t *lanes, float *margins) {
    static void (*const LANES_OF[MOST_LEVELS + 1])(const Forest *, const int8_t *, float *) = {
        NULL, lanes_1, lanes_2, lanes_3, lanes_4, lanes_5, lanes_6, lanes_7, lanes_8,
    };
    int row_of[WIDTH];
    for (int row = 0; row < WIDTH; row++) row_of[row] = row < count ? row : (int)count - 1;
    for (Py_ssize_t i = 0; i < forest->numbers; i++) encode_number(forest, rows, row_of, i, lanes);
    for (Py_ssize_t i = 0; i < forest->categories; i++) encode_category(forest, rows, row_of, i, lanes);
    LANES_OF[forest->levels](forest, lanes, margins);
}

#else

static int can_lanes(const Forest *forest) { return 0; }
static void lanes_rows(const Forest *forest, const float *rows, Py_ssize_t count, int8_t *lanes, float *margins) {}

#endif
#endif

/* Margins to predictions, in float32 as XGBoost does it, so that the last bit is the same. */
#ifndef PERENNIAL_FOREST_TRANSFORM_H
#define PERENNIAL_FOREST_TRANSFORM_H

#include "_forest_common.h"

static inline float sigmoid(float margin) {
    float power = -margin;
    if (power > 88.7f) power = 88.7f; /* where expf would be infinite */
    return 1.0f / (expf(power) + 1.0f);
}

static void softprob(const float *margins, Py_ssize_t groups, double *out) {
    float most = margins[0];
    for (Py_ssize_t i = 1; i < groups; i++) most = fmaxf(margins[i], most);
    double sum = 0.0;
    for (Py_ssize_t i = 0; i < groups; i++) sum += out[i] = expf(margins[i] - most);
    for (Py_ssize_t i = 0; i < groups; i++) out[i] = (float)out[i] / (float)sum;
}

static double softmax(const float *margins, Py_ssize_t groups) {
    Py_ssize_t best = 0;
    for (Py_ssize_t i = 1; i < groups; i++)
        if (margins[i] > margins[best]) best = i;
    return (double)best;
}

/* One row: margins, float[groups], to out, double[outputs]. */
static void transform_row(const Forest *forest, const float *margins, double *out) {
    Py_ssize_t groups = forest->groups_count;
    switch (forest->transform) {
        case SIGMOID:
            for (Py_ssize_t i = 0; i < groups; i++) out[i] = sigmoid(margins[i]);
            return;
        case EXP:
            for (Py_ssize_t i = 0; i < groups; i++) out[i] = expf(margins[i]);
            return;
        case HINGE:
            for (Py_ssize_t i = 0; i < groups; i++) out[i] = margins[i] > 0.0f;
            return;
        case SOFTPROB:
            softprob(margins, groups, out);
            return;
        case SOFTMAX:
            out[0] = softmax(margins, groups);
            return;
        default:
            for (Py_ssize_t i = 0; i < groups; i++) out[i] = margins[i];
    }
}

#endif

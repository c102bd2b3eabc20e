/* What the fused steps share: vectors, products of a few rows with a packed tile, and the optimiser's step. */

#ifndef TUNER_VECTORS_H
#define TUNER_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#define ACROSS 4
#elif defined(__AVX__)
#define LANES 8
#define ACROSS 2
#elif defined(__aarch64__)
#define LANES 4
#define ACROSS 4
#else
#define LANES 4
#define ACROSS 2
#endif
/* Rows at a time, and images at a time forward (they divide 4): with ACROSS they fill the registers with sums. */
#define ROWS 6
#define IMAGES ACROSS

/* Keeps a loaded vector in its register; compilers else load it anew for every use, and loads are what is scarce. */
#if defined(__AVX512F__)
#define HOLD(value) __asm__("" : "+v"(value))
#elif defined(__SSE__)
#define HOLD(value) __asm__("" : "+x"(value))
#elif defined(__aarch64__)
#define HOLD(value) __asm__("" : "+w"(value))
#else
#define HOLD(value)
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));

/* What the optimiser's step needs of a row; the order is that of readout.py. */
enum { SHRINK, RATE, KEEP1, NEW1, KEEP2, NEW2, ROOT2, SHARED };

static const float EPSILON = 1e-8f;

static inline int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* Which of `n` pieces of work the calling thread does: from *begin up to, not including, the result. */
static inline int64_t my_part(int64_t n, int64_t *begin)
{
    int64_t me = 0, all = 1;
#ifdef _OPENMP
    me = omp_get_thread_num();
    all = omp_get_num_threads();
#endif
    *begin = n * me / all;
    return n * (me + 1) / all;
}

/* The sum of a vector's elements, always in the same order. */
static inline float total(const vec *value)
{
    quad part[LANES / 4];
    memcpy(part, value, sizeof part);
    for (int l = 1; l < LANES / 4; l++) part[0] += part[l];
    return (part[0][0] + part[0][2]) + (part[0][1] + part[0][3]);
}

static inline float dot(const float *a, const float *b, int64_t n)
{
    vec many = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) many += *(const vec *)(a + i) * *(const vec *)(b + i);
    float sum = total(&many);
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* out (ROWS, stride) = r' x, with r (n, ROWS) and x (n, stride). */
static inline void product(const float *restrict x, const float *restrict r, float *restrict out, int64_t n,
                           int64_t stride)
{
    int64_t f = 0;
    for (; f + ACROSS * LANES <= stride; f += ACROSS * LANES) {
        vec sum[ROWS][ACROSS];
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < ACROSS; j++) sum[i][j] = (vec){0};
        for (int64_t b = 0; b < n; b++) {
            vec in[ACROSS];
            for (int j = 0; j < ACROSS; j++) in[j] = *(const vec *)(x + b * stride + f + j * LANES);
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < ACROSS; j++) sum[i][j] += r[b * ROWS + i] * in[j];
        }
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < ACROSS; j++) *(vec *)(out + i * stride + f + j * LANES) = sum[i][j];
    }
    for (; f < stride; f += LANES) {
        vec sum[ROWS];
        for (int i = 0; i < ROWS; i++) sum[i] = (vec){0};
        for (int64_t b = 0; b < n; b++) {
            const vec in = *(const vec *)(x + b * stride + f);
            for (int i = 0; i < ROWS; i++) sum[i] += r[b * ROWS + i] * in;
        }
        for (int i = 0; i < ROWS; i++) *(vec *)(out + i * stride + f) = sum[i];
    }
}

/* Adds the products of w (ROWS, wide) with x (n, stride) to y (rows, n); n is a multiple of 4. */
static inline void respond(const float *restrict x, const float *restrict w, float *restrict y, int64_t n, int64_t stride,
                           int64_t wide, int64_t rows)
{
    for (int64_t b = 0; b < n; b += IMAGES) {
        vec sum[ROWS][IMAGES];
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < IMAGES; j++) sum[i][j] = (vec){0};
        for (int64_t f = 0; f < stride; f += LANES) {
            vec in[IMAGES];
            for (int j = 0; j < IMAGES; j++) in[j] = *(const vec *)(x + (b + j) * stride + f);
            for (int i = 0; i < ROWS; i++) {
                vec mine = *(const vec *)(w + i * wide + f);
                HOLD(mine);
                for (int j = 0; j < IMAGES; j++) sum[i][j] += mine * in[j];
            }
        }
        for (int64_t i = 0; i < rows; i++)
            for (int j = 0; j < IMAGES; j++) y[i * n + b + j] += total(&sum[i][j]);
    }
}

/* Adam and the proximal map of the L1 penalty on n weights w, in place, given the gradient; they are written to `weight`
   too, which may be w itself. */
static inline void adam(float *w, float *weight, float *restrict m, float *restrict v, const float *restrict g,
                        const float *restrict c, int64_t n)
{
    const float shrink = c[SHRINK], rate = c[RATE], root2 = c[ROOT2];
    const float keep1 = c[KEEP1], new1 = c[NEW1], keep2 = c[KEEP2], new2 = c[NEW2];
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        const float first = keep1 * m[i] + new1 * g[i];
        const float second = keep2 * v[i] + new2 * g[i] * g[i];
        const float scale = 1.0f / (sqrtf(second) * root2 + EPSILON);
        const float moved = w[i] - rate * first * scale;
        const float limit = shrink * scale;
        const float above = moved - limit, below = moved + limit;
        m[i] = first;
        v[i] = second;
        /* Not fmaxf and fminf: those would turn a NaN into 0 and hide a column that has diverged. */
        const float now = (above < 0.0f ? 0.0f : above) + (below > 0.0f ? 0.0f : below);
        w[i] = now;
        weight[i] = now;
    }
}

#endif

/* One optimiser step of the full readout on rows of (C, h, w) weights: penalties, Adam and the proximal map of the L1
   penalty, in one pass over the weights. Every plane (one channel of one column) is small enough to stay in the first
   cache while its Laplacian is taken twice; so a step moves 28 bytes a weight and no more. The formulas are those of
   full.py and readout.py, and tests hold the two equal. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* Per column; the order is that of native.py. */
enum { SHRINK, SMOOTH2, GROUP, RATE, KEEP1, NEW1, KEEP2, NEW2, ROOT2, FIELDS };

static const float EPSILON = 1e-8f;
static const float GROUP_EPSILON = 1e-12f;

/* Zero-padded 5-point Laplacian, centre 4. */
static void laplacian(const float *restrict in, float *restrict out, int64_t h, int64_t w)
{
    for (int64_t y = 0; y < h; y++) {
        const float *row = in + y * w;
        float *to = out + y * w;
        for (int64_t x = 0; x < w; x++) to[x] = 4.0f * row[x];
        if (y > 0)
            for (int64_t x = 0; x < w; x++) to[x] -= row[x - w];
        if (y < h - 1)
            for (int64_t x = 0; x < w; x++) to[x] -= row[x + w];
        for (int64_t x = 1; x < w; x++) to[x] -= row[x - 1];
        for (int64_t x = 0; x + 1 < w; x++) to[x] -= row[x + 1];
    }
}

static void plane(float *restrict w, float *restrict m, float *restrict v, const float *restrict g,
                  const float *restrict rough, const float *restrict c, float group, int64_t n)
{
    const float shrink = c[SHRINK], smooth2 = rough ? c[SMOOTH2] : 0.0f, rate = c[RATE];
    const float keep1 = c[KEEP1], new1 = c[NEW1], keep2 = c[KEEP2], new2 = c[NEW2], root2 = c[ROOT2];
    for (int64_t i = 0; i < n; i++) {
        float gradient = g[i] + group * w[i];
        if (rough) gradient += smooth2 * rough[i];
        const float first = keep1 * m[i] + new1 * gradient;
        const float second = keep2 * v[i] + new2 * gradient * gradient;
        const float scale = 1.0f / (sqrtf(second) * root2 + EPSILON);
        const float moved = w[i] - rate * first * scale;
        const float limit = shrink * scale;
        const float above = moved - limit, below = moved + limit;
        m[i] = first;
        v[i] = second;
        /* Not fmaxf and fminf: those would turn a NaN into 0 and hide a column that has diverged. */
        w[i] = (above < 0.0f ? 0.0f : above) + (below > 0.0f ? 0.0f : below);
    }
}

/* Returns 0, or 1 where memory for two planes could not be had. */
int full_step(int64_t columns, int64_t channels, int64_t h, int64_t w, float *weight, float *first,
              float *second, const float *gradient, const float *column)
{
    const int64_t cells = h * w;
    int failed = 0;
#pragma omp parallel
    {
        float *once = malloc(2 * cells * sizeof(float));
        float *twice = once + cells;
        if (!once) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < columns * channels; i++) {
            if (!once) continue;
            const float *c = column + (i / channels) * FIELDS;
            float *mine = weight + i * cells;
            const float *rough = NULL;
            float group = 0.0f;
            if (c[SMOOTH2] != 0.0f) {
                laplacian(mine, once, h, w);
                laplacian(once, twice, h, w);
                rough = twice;
            }
            if (c[GROUP] != 0.0f) {
                float sum = 0.0f;
                for (int64_t p = 0; p < cells; p++) sum += mine[p] * mine[p];
                group = c[GROUP] / sqrtf(sum + GROUP_EPSILON);
            }
            plane(mine, first + i * cells, second + i * cells, gradient + i * cells, rough, c, group, cells);
        }
        free(once);
    }
    return failed;
}

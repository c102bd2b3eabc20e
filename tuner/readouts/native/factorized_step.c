/* One optimiser step of the factorized readout but that of the mask, in one pass over a feature batch.

   A batch is packed in tiles of a few images, each (C, images * cells), that stay in the second cache. For a few columns at
   a time a tile's channels are summed by their feature weights, which gives the responses of these images, so the derivative
   of the loss, so all that these images add to the gradients: no intermediate result is ever stored, forward and backward
   read the batch once. Then Adam and the proximal map move the feature weights. A column's numbers do not depend on how many
   columns or threads there are. The formulas are those of factorized.py, readout.py and losses.py; tests hold them equal. */

#include "vectors.h"

/* Per column, after what all steps share: twice the weight decay, and the bias. */
enum { DECAY2 = SHARED, BIAS, FIELDS };

enum { MSE, POISSON };

static const float LOSS_EPSILON = 1e-9f;

typedef struct {
    int64_t images, count, stride, rows; /* images a tile, tiles, floats of a tile's row, rows: channels, filled up */
} tiling;

static tiling tiles(int64_t channels, int64_t cells, int64_t batch)
{
    tiling t;
    t.rows = up(channels, 4);
    t.images = 131072 / (t.rows * cells);
    const int64_t most = (2048 + cells - 1) / cells;
    t.images = t.images > most ? most : t.images;
    t.images = t.images < 1 ? 1 : t.images > batch ? batch : t.images;
    t.count = (batch + t.images - 1) / t.images;
    t.stride = up(t.images * cells, LANES);
    return t;
}

/* Floats of a packed batch. */
int64_t factorized_packed(int64_t channels, int64_t cells, int64_t batch)
{
    const tiling t = tiles(channels, cells, batch);
    return t.count * t.rows * t.stride;
}

/* A batch (B, C * cells) tile after tile, each (rows, stride), filled up with zeros. */
void factorized_pack(int64_t channels, int64_t cells, int64_t batch, const float *x, float *packed)
{
    const tiling t = tiles(channels, cells, batch);
#pragma omp parallel for schedule(static)
    for (int64_t tile = 0; tile < t.count; tile++) {
        const int64_t left = batch - tile * t.images, here = left < t.images ? left : t.images;
        for (int64_t c = 0; c < t.rows; c++) {
            float *to = packed + (tile * t.rows + c) * t.stride;
            const int64_t n = c < channels ? here : 0;
            for (int64_t b = 0; b < n; b++)
                memcpy(to + b * cells, x + ((tile * t.images + b) * channels + c) * cells, cells * sizeof(float));
            memset(to + n * cells, 0, (t.stride - n * cells) * sizeof(float));
        }
    }
}

static float derivative(int loss, float y, float target)
{
    if (loss == MSE) return 2.0f * (y - target);
    const float below = expf(y > 0.0f ? 0.0f : y);
    const float rate = y > 0.0f ? y + 1.0f : expm1f(y) + 1.0f;
    return (1.0f - target / (rate + LOSS_EPSILON)) * below;
}

/* Scratch of one thread. */
typedef struct {
    float *inner, *back, *f, *by, *bias;
} room;

/* All that a tile of images means for a few columns. `y` is given the responses; with `target` the gradients grow. */
static void meet(const float *x, const float *mask, const float *column, const float *target, const float *share,
                 float *y, float *by_mask, const room *own, const tiling *t, int64_t images, int64_t batch,
                 int64_t cells, int64_t some, float scale, int loss)
{
    product(x, own->f, own->inner, t->rows, t->stride);
    for (int64_t i = 0; i < some; i++) {
        const float *m = mask + i * cells, bias = column[i * FIELDS + BIAS];
        for (int64_t b = 0; b < images; b++) {
            const float *in = own->inner + i * t->stride + b * cells;
            const float response = bias + scale * dot(in, m, cells);
            if (y) y[i * batch + b] = response;
            if (!target) continue;
            const float by = share[i * batch + b];
            /* Not a product alone: a missing response is no reason for a diverged one to spread. */
            const float residual = by == 0.0f ? 0.0f : by * derivative(loss, response, target[i * batch + b]);
            const float scaled = residual * scale;
            float *grown = by_mask + i * cells, *back = own->back + i * t->stride + b * cells;
            own->bias[i] += residual;
#pragma GCC ivdep
            for (int64_t p = 0; p < cells; p++) {
                grown[p] += scaled * in[p];
                back[p] = scaled * m[p];
            }
        }
    }
    if (target) respond(x, own->back, own->by, t->rows, t->stride, t->stride, some);
}

/* Returns 0, or 1 where memory for a few tiles could not be had; then nothing is of any use.
   mask (K, cells) is never negative and stays as it is; by_mask (K, cells) and by_bias (K) become its gradient and that
   of the bias; features, first and second (K, C) move. share (K, batch) is what each image counts in the mean. Without
   target only y (K, batch), the responses, is made; with it y may be NULL. */
int factorized_step(int64_t columns, int64_t channels, int64_t cells, int64_t batch, float *features, float *first,
                    float *second, const float *mask, const float *column, const float *x, const float *target,
                    const float *share, float *y, float *by_mask, float *by_bias, int loss)
{
    const tiling t = tiles(channels, cells, batch);
    const int64_t blocks = (columns + ROWS - 1) / ROWS;
    const float scale = 1.0f / sqrtf((float)channels);
    int failed = 0;
#pragma omp parallel
    {
        int64_t begin;
        const int64_t end = my_part(blocks, &begin), mine = end - begin;
        /* Feature weights as `product` reads them, and their gradient, of all this thread's columns. */
        const int64_t floats = 2 * mine * t.rows * ROWS + 2 * ROWS * t.stride + up(mine * ROWS, LANES);
        float *memory = mine ? aligned_alloc(64, up(floats * sizeof(float), 64)) : NULL;
        if (mine && !memory) {
#pragma omp atomic write
            failed = 1;
        } else if (mine) {
            memset(memory, 0, floats * sizeof(float));
            float *packed = memory, *by = packed + mine * t.rows * ROWS;
            room own = {.inner = by + mine * t.rows * ROWS};
            own.back = own.inner + ROWS * t.stride;
            float *bias = own.back + ROWS * t.stride;
            for (int64_t k = begin * ROWS; k < end * ROWS && k < columns; k++) {
                const int64_t block = k / ROWS - begin, i = k % ROWS;
                for (int64_t c = 0; c < channels; c++)
                    packed[(block * t.rows + c) * ROWS + i] = features[k * channels + c];
                if (target) memset(by_mask + k * cells, 0, cells * sizeof(float));
            }
            for (int64_t tile = 0; tile < t.count; tile++) {
                const int64_t image = tile * t.images, left = batch - image;
                const int64_t images = left < t.images ? left : t.images;
                if (images < t.images) memset(own.back, 0, ROWS * t.stride * sizeof(float));
                for (int64_t block = 0; block < mine; block++) {
                    const int64_t k = (begin + block) * ROWS, some = columns - k < ROWS ? columns - k : ROWS;
                    const int64_t at = k * batch + image;
                    own.f = packed + block * t.rows * ROWS;
                    own.by = by + block * t.rows * ROWS;
                    own.bias = bias + block * ROWS;
                    meet(x + tile * t.rows * t.stride, mask + k * cells, column + k * FIELDS,
                         target ? target + at : NULL, share ? share + at : NULL, y ? y + at : NULL,
                         by_mask ? by_mask + k * cells : NULL, &own, &t, images, batch, cells, some, scale, loss);
                }
            }
            for (int64_t k = begin * ROWS; target && k < end * ROWS && k < columns; k++) {
                const float *c = column + k * FIELDS;
                float *mine_now = features + k * channels, *gradient = by + (k - begin * ROWS) * t.rows;
                by_bias[k] = bias[k - begin * ROWS];
                for (int64_t i = 0; i < channels; i++) gradient[i] += c[DECAY2] * mine_now[i];
                adam(mine_now, mine_now, first + k * channels, second + k * channels, gradient, c, channels);
            }
            free(memory);
        }
    }
    return failed;
}

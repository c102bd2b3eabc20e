/* One optimiser step of the full readout, and the responses to the batch that follows, in one pass over the weights.

   Rows are columns of the fit, each (C, h, w) weights. They are walked in tiles of whole channels that fit the caches: the
   gradient of a few rows over a tile is made in registers, the penalties are added, Adam and the proximal map of the L1
   penalty move the weights, and the moved weights meet the next batch before they leave the cache. So a step reads and
   writes the weights and their two moments once, 24 bytes a weight, and no gradient is ever stored. A row's numbers do not
   depend on how many rows or threads there are. The formulas are those of full.py and readout.py; tests hold them equal. */

#include "vectors.h"

/* Per row, after what all steps share. */
enum { SMOOTH2 = SHARED, GROUP, DECAY2, FIELDS };

static const float GROUP_EPSILON = 1e-12f;

typedef struct {
    int64_t planes, count, stride, images; /* channels a tile, tiles, floats a tile's row, rows of a packed tile */
} tiling;

/* Tiles of which two batches stay in the second cache. */
static tiling tiles(int64_t channels, int64_t cells, int64_t batch)
{
    tiling t;
    t.images = up(batch, 4);
    int64_t wanted = 65536 / t.images;
    wanted = wanted > 1024 ? 1024 : wanted < 64 ? 64 : wanted;
    t.planes = wanted / cells;
    t.planes = t.planes < 1 ? 1 : t.planes > channels ? channels : t.planes;
    t.count = (channels + t.planes - 1) / t.planes;
    t.stride = up(t.planes * cells, LANES);
    return t;
}

/* Floats of a packed batch. */
int64_t full_packed(int64_t channels, int64_t cells, int64_t batch)
{
    const tiling t = tiles(channels, cells, batch);
    return t.count * t.images * t.stride;
}

/* A batch (B, F) tile after tile, each (images, stride), filled up with zeros. */
void full_pack(int64_t channels, int64_t cells, int64_t batch, const float *x, float *packed)
{
    const tiling t = tiles(channels, cells, batch);
#pragma omp parallel for schedule(static)
    for (int64_t tile = 0; tile < t.count; tile++) {
        const int64_t left = channels - tile * t.planes, here = (left < t.planes ? left : t.planes) * cells;
        for (int64_t b = 0; b < t.images; b++) {
            float *to = packed + (tile * t.images + b) * t.stride;
            const int64_t n = b < batch ? here : 0;
            if (n) memcpy(to, x + b * channels * cells + tile * t.planes * cells, n * sizeof(float));
            memset(to + n, 0, (t.stride - n) * sizeof(float));
        }
    }
}

/* Where a cell has a neighbour above, below, left and right: 1, else 0; four times `stride`. */
static void borders(float *edge, int64_t n, int64_t h, int64_t w, int64_t stride)
{
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = i / w % h, at = i % w;
        edge[i] = row > 0;
        edge[stride + i] = row < h - 1;
        edge[2 * stride + i] = at > 0;
        edge[3 * stride + i] = at < w - 1;
    }
}

/* Adds `by` times the zero-padded 5-point Laplacian, centre 4, to `out`; rows of w cells, planes end to end. */
static void laplacian(const float *restrict in, float *restrict out, const float *restrict edge, float by, int64_t n,
                      int64_t w, int64_t stride)
{
    const float *above = edge, *below = edge + stride, *left = edge + 2 * stride, *right = edge + 3 * stride;
    for (int64_t i = 0; i < n; i++)
        out[i] += by * (4.0f * in[i] - above[i] * in[i - w] - below[i] * in[i + w] - left[i] * in[i - 1] -
                        right[i] * in[i + 1]);
}

/* Room of one thread. A row of `mine` and of `rough` has `guard` zeros on both sides, for the Laplacian's reach. */
typedef struct {
    float *g, *mine, *rough, *edge, *r;
    int64_t guard, wide;
} room;

/* Penalties, Adam and the proximal map on one row of a tile; the moved weights are left in `mine` too. */
static void move(float *restrict weight, float *restrict m, float *restrict v, float *restrict g, float *restrict mine,
                 const room *own, const float *restrict c, int64_t planes, int64_t cells, int64_t w, int64_t stride)
{
    const int64_t n = planes * cells;
    memcpy(mine, weight, n * sizeof(float));
    /* What another row left behind the end must not be met, not even times 0: it may be NaN. */
    memset(mine + n, 0, (stride - n) * sizeof(float));
    if (c[SMOOTH2] != 0.0f) {
        memset(own->rough, 0, stride * sizeof(float));
        laplacian(mine, own->rough, own->edge, 1.0f, n, w, stride);
        laplacian(own->rough, g, own->edge, c[SMOOTH2], n, w, stride);
    }
    if (c[GROUP] != 0.0f)
        for (int64_t p = 0; p < planes; p++) {
            const float *plane = mine + p * cells;
            const float group = c[GROUP] / sqrtf(dot(plane, plane, cells) + GROUP_EPSILON);
            for (int64_t i = 0; i < cells; i++) g[p * cells + i] += group * plane[i];
        }
    if (c[DECAY2] != 0.0f)
        for (int64_t i = 0; i < n; i++) g[i] += c[DECAY2] * mine[i];
    adam(mine, weight, m, v, g, c, n);
}

/* Returns 0, or 1 where memory for a few tiles could not be had; then nothing is of any use.
   residual (rows, batch) is the loss's derivative by the raw product; x and next are packed, next may be NULL;
   y (rows, images) becomes the raw products with next. */
int full_step(int64_t rows, int64_t channels, int64_t h, int64_t w, int64_t batch, float *weight, float *first,
              float *second, const float *residual, const float *column, const float *x, const float *next, float *y)
{
    const int64_t cells = h * w, size = channels * cells, blocks = (rows + ROWS - 1) / ROWS;
    const tiling t = tiles(channels, cells, batch);
    int failed = 0;
#pragma omp parallel
    {
        room own = {.guard = up(w, LANES)};
        own.wide = t.stride + 2 * own.guard;
        const int64_t floats = ROWS * (t.stride + own.wide) + own.wide + 4 * t.stride + up(batch * ROWS, LANES);
        own.g = aligned_alloc(64, up(floats * sizeof(float), 64));
        if (!own.g) {
#pragma omp atomic write
            failed = 1;
        } else {
            memset(own.g, 0, floats * sizeof(float));
            own.mine = own.g + ROWS * t.stride + own.guard;
            own.rough = own.mine + ROWS * own.wide;
            own.edge = own.rough - own.guard + own.wide;
            own.r = own.edge + 4 * t.stride;
            borders(own.edge, t.planes * cells, h, w, t.stride);
            int64_t begin;
            const int64_t end = my_part(blocks, &begin);
            if (next && begin < end) {
                const int64_t last = end * ROWS < rows ? end * ROWS : rows;
                memset(y + begin * ROWS * t.images, 0, (last - begin * ROWS) * t.images * sizeof(float));
            }
            for (int64_t tile = 0; tile < t.count; tile++) {
                const int64_t left = channels - tile * t.planes, planes = left < t.planes ? left : t.planes;
                for (int64_t block = begin; block < end; block++) {
                    const int64_t row = block * ROWS, some = rows - row < ROWS ? rows - row : ROWS;
                    for (int64_t b = 0; b < batch; b++)
                        for (int64_t i = 0; i < ROWS; i++)
                            own.r[b * ROWS + i] = i < some ? residual[(row + i) * batch + b] : 0.0f;
                    product(x + tile * t.images * t.stride, own.r, own.g, batch, t.stride);
                    for (int64_t i = 0; i < some; i++) {
                        const int64_t at = (row + i) * size + tile * t.planes * cells;
                        move(weight + at, first + at, second + at, own.g + i * t.stride, own.mine + i * own.wide, &own,
                             column + (row + i) * FIELDS, planes, cells, w, t.stride);
                    }
                    if (next)
                        respond(next + tile * t.images * t.stride, own.mine, y + row * t.images, t.images, t.stride,
                                own.wide, some);
                }
            }
            free(own.g);
        }
    }
    return failed;
}

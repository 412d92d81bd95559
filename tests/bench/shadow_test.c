/* An allocator that does wrong in each way in turn: bench/shadow.c must notice each. */
#include "bench/shadow.c"

static uint32_t answer; /* what the next allocation hands out */
static int refusal;     /* what the next free says */

static uint32_t wrong_alloc(void *self, unsigned order)
{
    (void)self;
    (void)order;
    return answer;
}

static int wrong_free(void *self, uint32_t frame, unsigned order)
{
    (void)self;
    (void)frame;
    (void)order;
    return refusal;
}

static uint32_t wrong_alloc_run(void *self, uint32_t n)
{
    (void)self;
    (void)n;
    return answer;
}

static uint32_t wrong_alloc_bulk(void *self, uint64_t *pas, uint32_t n)
{
    (void)self;
    for (uint32_t i = 0; i < n; i++)
        pas[i] = (uint64_t)answer << 12;
    return n;
}

static const struct bench_ops wrong = {
    .name = "wrong",
    .alloc = wrong_alloc,
    .free = wrong_free,
    .alloc_run = wrong_alloc_run,
    .alloc_bulk = wrong_alloc_bulk,
};

static const struct bench_ops *begin(void)
{
    shadow.error[0] = 0;
    refusal = 0;
    answer = 0;
    shadow_create(&wrong, NULL, 1024);
    return shadow_ops(&wrong);
}

static int silent_when_right(void)
{
    const struct bench_ops *ops = begin();
    uint32_t frame = ops->alloc(NULL, 3);
    ops->free(NULL, frame, 3);
    ops->alloc(NULL, 9);
    return shadow_error() == NULL;
}

static int twice(void)
{
    const struct bench_ops *ops = begin();
    ops->alloc(NULL, 1);
    answer = 1;
    ops->alloc(NULL, 0);
    return shadow_error() != NULL;
}

static int outside(void)
{
    const struct bench_ops *ops = begin();
    answer = 1020;
    ops->alloc_run(NULL, 5);
    return shadow_error() != NULL;
}

static int misaligned(void)
{
    const struct bench_ops *ops = begin();
    answer = 2;
    ops->alloc(NULL, 2);
    return shadow_error() != NULL;
}

static int refused(void)
{
    const struct bench_ops *ops = begin();
    ops->alloc(NULL, 0);
    refusal = -2;
    ops->free(NULL, 0, 0);
    return shadow_error() != NULL;
}

static int not_held(void)
{
    const struct bench_ops *ops = begin();
    ops->free(NULL, 5, 0);
    return shadow_error() != NULL;
}

static int twice_in_bulk(void)
{
    const struct bench_ops *ops = begin();
    uint64_t pas[2];
    ops->alloc_bulk(NULL, pas, 2);
    return shadow_error() != NULL;
}

int main(void)
{
    static const struct {
        const char *name;
        int (*holds)(void);
    } cases[] = {
        {"nothing wrong", silent_when_right},
        {"handed out twice", twice},
        {"outside the pool", outside},
        {"misaligned", misaligned},
        {"free refused", refused},
        {"freed, not held", not_held},
        {"twice in one bulk call", twice_in_bulk},
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (!cases[i].holds()) {
            printf("not noticed: %s\n", cases[i].name);
            failed = 1;
        }
    }
    return failed;
}

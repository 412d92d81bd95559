/* ipi_test.c - the guide's requests to other CPUs and its locks, on a machine made of threads: no
 * request is lost or answered twice, and CPUs that ask each other, or wait with interrupts off for
 * the lock of one that asks, all get through. Built with thread sanitizer. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void port_fence(void);
#define MM_FENCE_CPUS() port_fence()
#define MM_PAGETABLE_X86_64
#define MM_PAGETABLE_IMPLEMENTATION
#include "mm.c"
#include "ipi.c"

#define CPUS     4u
#define REQUESTS 300u

_Thread_local unsigned test_cpu;
_Thread_local uintptr_t test_irq = 1;
_Thread_local unsigned long test_flushed_pages, test_flushed_all;

static uintptr_t lock, running = CPUS, broken;
static unsigned long guarded; /* by the lock */
static unsigned long pages[CPUS], alls[CPUS];

static mm_pa_t make_table(void *ctx, uint64_t bytes)
{
    (void)ctx;
    void *page = aligned_alloc((size_t)bytes, (size_t)bytes);
    return page != NULL ? (mm_pa_t)(uintptr_t)page : MM_PA_NONE;
}
static void drop_table(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)ctx, (void)bytes;
    free((void *)(uintptr_t)table);
}

static struct mm_pagetable pt;

/* One request of each kind, while the lock is held; others spin for it with interrupts off. */
static void ask(unsigned long n)
{
    const struct mm_pagetable_range range = {0x1000 * n, 0x3000, 0};
    struct mm_pagetable_flush flush = {0};
    uintptr_t state;

    flush.pt = &pt;
    flush.ranges = &range;
    flush.count = 1;
    MM_LOCK(&lock, state);
    guarded++;
    port_tlb_flush(NULL, &flush);
    MM_UNLOCK(&lock, state);
    flush.count = 0;
    flush.all = true;
    port_tlb_flush(NULL, &flush); /* no lock: several ask at once */
    port_fence();
    if (test_irq != 1)
        mm_store(&broken, 1);
}

#define FRAMES 8192u /* two sections for four CPUs: they keep taking them from each other */

static struct mm_frame_pool frames;
static uintptr_t slot[64]; /* frames on their way to whoever frees them, 0: none */

/* Frames that another CPU frees. The call of port_answer() is the interrupt. */
static void exchange_frames(unsigned long n)
{
    mm_pa_t pa = mm_frame_alloc(&frames, 0);
    port_answer();
    if (pa == MM_PA_NONE)
        return;
    pa = mm_exchange(&slot[n * 7 % 64], (uintptr_t)pa);
    if (pa != 0 && mm_frame_free(&frames, pa) != MM_OK)
        mm_store(&broken, 1);
}

static enum mm_status make_frames(void)
{
    static const struct mm_frame_range map = {1 << 24, FRAMES * MM_PAGE_SIZE, MM_FRAME_USABLE};
    static unsigned char metadata[1 << 16];
    struct mm_frame_config config = {0};

    config.map = &map;
    config.map_count = 1;
    config.meta = metadata;
    config.meta_size = sizeof metadata;
    return mm_frame_init(&frames, &config);
}

/* Frames in slots, and the check of the pool, once all CPUs are through. */
static bool frames_are_whole(void)
{
    unsigned i;

    for (i = 0; i < 64; i++)
        if (slot[i] != 0 && mm_frame_free(&frames, slot[i]) != MM_OK)
            return false;
    return mm_frame_check(&frames, 0, NULL) == MM_FRAME_HEALTHY;
}

static void *cpu(void *number)
{
    unsigned long n;

    test_cpu = (unsigned)(uintptr_t)number;
    for (n = 0; n < REQUESTS; n++)
        ask(n);
    for (n = 0; n < 20 * REQUESTS; n++)
        exchange_frames(n + test_cpu);
    mm_fetch_add(&running, (uintptr_t)-1);
    while (mm_load_acquire(&running) != 0)
        MM_CPU_RELAX(); /* an idle CPU answers still */
    pages[test_cpu] = test_flushed_pages;
    alls[test_cpu] = test_flushed_all;
    return NULL;
}

int main(void)
{
    static const struct mm_pagetable_hooks hooks = {.alloc = make_table, .free = drop_table};
    struct mm_pagetable_config config;
    struct mm_frame_stats stats;
    pthread_t thread[CPUS];
    uintptr_t i;

    alarm(60); /* a deadlock is a failure */
    if (make_frames() != MM_OK)
        return 1;
    if (mm_pagetable_config_init(&config, NULL, &hooks, 0) != MM_OK ||
        mm_pagetable_init(&pt, &config) != MM_OK)
        return 1;
    port_online = (1u << CPUS) - 1;
    for (i = 0; i < CPUS; i++)
        if (pthread_create(&thread[i], NULL, cpu, (void *)i) != 0)
            return 1;
    for (i = 0; i < CPUS; i++)
        pthread_join(thread[i], NULL);
    for (i = 0; i < CPUS; i++) {
        if (pages[i] != 3ul * CPUS * REQUESTS || alls[i] != (unsigned long)CPUS * REQUESTS) {
            printf("cpu %u: %lu pages, %lu times all\n", (unsigned)i, pages[i], alls[i]);
            return 1;
        }
    }
    (void)mm_pagetable_destroy(&pt, false);
    if (mm_frame_get_stats(&frames, 0, &stats) != MM_OK || stats.taken_away == 0) {
        puts("no CPU took frames from another one");
        return 1;
    }
    port_online = 1; /* the others are gone: nobody asks them any more */
    if (!frames_are_whole())
        return 1;
    return broken != 0 || guarded != (unsigned long)CPUS * REQUESTS;
}

/* ipi_test.c - the guide's requests to other CPUs and its locks, on a machine made of threads: no request is
 * lost or answered twice, and CPUs that ask each other, or wait with interrupts off for the lock of one
 * that asks, all get through. Built with thread sanitizer. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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

static void *cpu(void *number)
{
    unsigned long n;

    test_cpu = (unsigned)(uintptr_t)number;
    for (n = 0; n < REQUESTS; n++)
        ask(n);
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
    pthread_t thread[CPUS];
    uintptr_t i;

    alarm(60); /* a deadlock is a failure */
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
    mm_pagetable_destroy(&pt, false);
    return broken != 0 || guarded != (unsigned long)CPUS * REQUESTS;
}

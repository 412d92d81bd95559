/* The calls of mm_vma.h one by one: results, ends of the address space, limits, layouts, listing,
 * life. */
#include "vma_test.h"

struct fixture {
    struct vma_source source;
    struct mm_vma_system sys;
    struct mm_vma_space space;
    struct mm_test_fail fail;
    long areas;
};

static struct fixture *f;

static struct mm_vma *area_alloc(void *ctx)
{
    (void)ctx;
    if (mm_test_fails(&f->fail))
        return NULL;
    f->areas++;
    return aligned_alloc(64, sizeof(struct mm_vma));
}

static void area_free(void *ctx, struct mm_vma *vma)
{
    (void)ctx;
    f->areas--;
    free(vma);
}

static enum mm_status shared(void *ctx, uint64_t pages, void **file)
{
    static char objects[4096];
    static unsigned next;

    (void)ctx;
    (void)pages;
    if (mm_test_fails(&f->fail))
        return MM_ERR_NOMEM;
    *file = &objects[next++ % 4096];
    return MM_OK;
}

static const char *file_name(void *ctx, void *file)
{
    (void)ctx;
    return file;
}

static uint64_t random_pages(void *ctx, uint64_t below)
{
    (void)ctx;
    return below - 1;
}

static void hooks_of(struct mm_vma_hooks *h)
{
    memset(h, 0, sizeof *h);
    h->nodes = f->source.hooks;
    h->area_alloc = area_alloc;
    h->area_free = area_free;
    h->shared = shared;
    h->file_name = file_name;
    h->random = random_pages;
}

/* A space of 1,024 pages from 1 MiB on. */
static void config_of(struct mm_vma_config *c)
{
    mm_vma_config_init(c);
    c->low = c->up_base = 0x100000;
    c->top = c->mmap_base = 0x500000;
    c->guard_pages = 16;
}

static int set_up(void **state)
{
    struct mm_vma_config c;
    struct mm_vma_hooks h;

    (void)state;
    f = aligned_alloc(64, sizeof *f);
    memset(f, 0, sizeof *f);
    vma_source_init(&f->source);
    hooks_of(&h);
    config_of(&c);
    return mm_vma_system_init(&f->sys, &h) != MM_OK ||
           mm_vma_space_init(&f->space, &f->sys, &c) != MM_OK;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(mm_vma_check(&f->space), MM_OK);
    assert_true(mm_vma_leave(&f->space));
    mm_vma_system_fini(&f->sys);
    assert_int_equal(f->source.live, 0);
    assert_int_equal(f->areas, 0);
    free(f);
    return 0;
}

/* mmap of private anonymous memory; the address, or the result. */
static int64_t map(mm_va_t hint, uint64_t bytes, unsigned prot, unsigned flags)
{
    struct mm_vma_request r;
    mm_va_t va;
    int result;

    memset(&r, 0, sizeof r);
    r.hint = hint;
    r.bytes = bytes;
    r.prot = prot;
    r.flags =
        flags | MM_VMA_MAP_ANONYMOUS | ((flags & MM_VMA_MAP_TYPE) == 0 ? MM_VMA_MAP_PRIVATE : 0u);
    result = mm_vma_mmap(&f->space, &r, &va);
    return result == MM_VMA_OK ? (int64_t)va : result;
}

static uint64_t areas(void)
{
    struct mm_vma_totals t;

    mm_vma_read_totals(&f->space, &t);
    return t.areas;
}

static void mmap_refuses_bad_requests(void **state)
{
    struct mm_vma_request r;
    mm_va_t va = 77;

    (void)state;
    memset(&r, 0, sizeof r);
    r.bytes = PAGE;
    r.flags = MM_VMA_MAP_PRIVATE;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EBADF);
    r.file = f;
    r.offset = 5;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EINVAL);
    r.offset = (uint64_t)INT64_MAX / PAGE * PAGE;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EOVERFLOW);
    r.offset = 0;
    r.flags = 0;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EINVAL);
    r.flags = MM_VMA_MAP_SHARED;
    r.may = MM_VMA_READ;
    r.prot = MM_VMA_READ | MM_VMA_WRITE;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EACCES);
    r.prot = MM_VMA_READ | MM_VMA_EXEC; /* a file of a file system without programs */
    r.may = MM_VMA_READ | MM_VMA_WRITE;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EPERM);
    r.flags = MM_VMA_MAP_PRIVATE;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EPERM);
    r.prot = 0;
    r.may = MM_VMA_WRITE; /* open for writing only */
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EACCES);
    r.may = MM_VMA_READ;
    r.prot = MM_VMA_READ | MM_VMA_WRITE;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_GROWSDOWN;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EINVAL);
    r.hint = 0x300000;
    r.flags = MM_VMA_MAP_SHARED_VALIDATE | MM_VMA_MAP_FIXED_NOREPLACE;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EOPNOTSUPP);
    r.flags = MM_VMA_MAP_SHARED_VALIDATE | 0x80000;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EOPNOTSUPP);
    r.hint = 0;
    r.flags = MM_VMA_MAP_PRIVATE;
    r.align = 3;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_EINVAL);
    r.align = 0;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va),
                     MM_VMA_OK); /* a private copy may be written */
    assert_int_equal(map(0, 0, 3, 0), MM_VMA_EINVAL);
    assert_int_equal(map(0, UINT64_MAX, 3, 0), MM_VMA_ENOMEM);
    assert_int_equal(map(0, UINT64_MAX - PAGE, 3, 0), MM_VMA_ENOMEM);
    assert_int_equal(map(0, 0x400000 + 1, 3, 0), MM_VMA_ENOMEM);
    assert_int_equal(map(0x200001, PAGE, 3, MM_VMA_MAP_FIXED), MM_VMA_EINVAL);
    assert_int_equal(map(0x4ff000, 2 * PAGE, 3, MM_VMA_MAP_FIXED), MM_VMA_ENOMEM);
    assert_int_equal(map(UINT64_MAX & ~(PAGE - 1), PAGE, 3, MM_VMA_MAP_FIXED), MM_VMA_ENOMEM);
    assert_int_equal(map(0xff000, PAGE, 3, MM_VMA_MAP_FIXED), MM_VMA_EPERM);
    assert_int_equal(map(0x4ff000, PAGE, 3, MM_VMA_MAP_FIXED_NOREPLACE), MM_VMA_EEXIST);
}

static void the_last_page_before_the_top_is_mapped(void **state)
{
    (void)state;
    assert_int_equal(map(0x4ff000, PAGE, 3, MM_VMA_MAP_FIXED), 0x4ff000);
    assert_int_equal(map(0, PAGE, 1, 0), 0x4fe000);
    assert_int_equal(mm_vma_munmap(&f->space, 0x4ff000, PAGE), MM_VMA_OK);
    assert_int_equal(map(0, 0x3fe000, 3, 0), 0x100000);
    assert_int_equal(map(0, PAGE, 3, 0), 0x4ff000);
    assert_int_equal(map(0, PAGE, 3, 0), MM_VMA_ENOMEM);
}

/* PROT_SEM has the number of an area's flag SHARED. */
static void semaphores_leave_no_mark(void **state)
{
    (void)state;
    for (mm_va_t va = 0x200000; va < 0x208000; va += 2 * PAGE)
        assert_int_equal(map(va, PAGE, 3, MM_VMA_MAP_FIXED), va);
    for (mm_va_t va = 0x200000; va < 0x208000; va += 2 * PAGE) {
        assert_int_equal(mm_vma_mprotect(&f->space, va, PAGE, 1 | MM_VMA_PROT_SEM), MM_VMA_OK);
        assert_int_equal(mm_vma_map_access(&f->space.map, va), 1);
    }
}

static void ranges_are_checked(void **state)
{
    mm_va_t va;

    (void)state;
    assert_int_equal(map(0x200000, 4 * PAGE, 3, MM_VMA_MAP_FIXED), 0x200000);
    assert_int_equal(mm_vma_munmap(&f->space, 0x200001, PAGE), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_munmap(&f->space, 0x200000, 0), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_munmap(&f->space, 0x200000, UINT64_MAX), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_munmap(&f->space, 0x500000, PAGE), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_munmap(&f->space, 0, 0x100000), MM_VMA_OK);
    assert_int_equal(mm_vma_mprotect(&f->space, 0x200001, PAGE, 1), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mprotect(&f->space, 0x200000, 0, 1), MM_VMA_OK);
    assert_int_equal(mm_vma_mprotect(&f->space, 0x200000, UINT64_MAX, 1), MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_mprotect(&f->space, 0x200000, PAGE, 16), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mprotect(&f->space, 0x200000, PAGE, 3 | MM_VMA_PROT_SEM), MM_VMA_OK);
    assert_int_equal(mm_vma_mprotect(&f->space, 0x600000, PAGE, 1), MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_mprotect(&f->space, UINT64_MAX & ~(PAGE - 1), 2 * PAGE, 1),
                     MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_mprotect(&f->space, 0x200000, PAGE, 1 | MM_VMA_PROT_GROWSDOWN),
                     MM_VMA_EINVAL);
    assert_int_equal(mm_vma_madvise(&f->space, 0x200000, PAGE, 99), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_madvise(&f->space, 0x200001, PAGE, 0), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_madvise(&f->space, 0x200000, UINT64_MAX, 0), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_madvise(&f->space, 0x200000, 0, 0), MM_VMA_OK);
    assert_int_equal(mm_vma_madvise(&f->space, 0x300000, PAGE, 0), MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_madvise(&f->space, 0x600000, PAGE, 0), MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_mlock(&f->space, UINT64_MAX - 10, PAGE), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mlock(&f->space, 0x300000, PAGE), MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_mlock(&f->space, 0x200000, 0), MM_VMA_OK);
    assert_int_equal(mm_vma_munlock(&f->space, 0x600000, PAGE), MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_mremap(&f->space, 0x200001, PAGE, PAGE, 0, 0, &va), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mremap(&f->space, 0x200000, PAGE, 0, 0, 0, &va), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mremap(&f->space, 0x200000, PAGE, PAGE, 8, 0, &va), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mremap(&f->space, 0x200000, PAGE, PAGE, 2, 0x300000, &va),
                     MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mremap(&f->space, 0x200000, PAGE, PAGE, 3, 0x300001, &va),
                     MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mremap(&f->space, 0x200000, PAGE, PAGE, 3, 0x500000, &va),
                     MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mremap(&f->space, 0x200000, 2 * PAGE, PAGE, 3, 0x201000, &va),
                     MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mremap(&f->space, 0x200000, PAGE, 2 * PAGE, 5, 0x300000, &va),
                     MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mremap(&f->space, 0x200000, 0, PAGE, 1, 0, &va), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_mremap(&f->space, 0x300000, PAGE, PAGE, 1, 0, &va), MM_VMA_EFAULT);
    assert_int_equal(mm_vma_mremap(&f->space, 0x600000, PAGE, PAGE, 1, 0, &va), MM_VMA_EFAULT);
    assert_int_equal(mm_vma_mremap(&f->space, 0x203000, 2 * PAGE, 3 * PAGE, 1, 0, &va),
                     MM_VMA_EFAULT);
    assert_int_equal(mm_vma_populate(&f->space, 0x200000, 5 * PAGE), MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_populate(&f->space, 0x200001, PAGE), MM_VMA_EINVAL);
    assert_int_equal(areas(), 1); /* none of them changed anything */
}

/* What a range has of the last page changes; above the top there is a hole. */
static void a_range_beyond_the_top_ends_in_a_hole(void **state)
{
    const mm_va_t last = 0x500000 - PAGE;

    (void)state;
    assert_int_equal(map(last, PAGE, MM_VMA_READ, MM_VMA_MAP_FIXED), last);
    assert_int_equal(mm_vma_mprotect(&f->space, last, 2 * PAGE, 3), MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_map_access(&f->space.map, last), 3);
    assert_int_equal(mm_vma_madvise(&f->space, last, 2 * PAGE, MM_VMA_ADV_RANDOM), MM_VMA_ENOMEM);
    assert_true((mm_vma_find(&f->space, last)->flags & MM_VMA_RANDOM) != 0);
    assert_int_equal(mm_vma_mlock(&f->space, last, 2 * PAGE), MM_VMA_ENOMEM);
    assert_true((mm_vma_find(&f->space, last)->flags & MM_VMA_LOCKED) != 0);
    assert_int_equal(mm_vma_munlock(&f->space, last, 2 * PAGE), MM_VMA_ENOMEM);
    assert_true((mm_vma_find(&f->space, last)->flags & MM_VMA_LOCKED) == 0);
    assert_int_equal(mm_vma_munmap(&f->space, last, 2 * PAGE), MM_VMA_EINVAL);
}

/* A hint that is not a multiple of the alignment asked for is no place. */
static void a_hint_is_aligned_as_asked(void **state)
{
    struct mm_vma_request r;
    mm_va_t va = 0;

    (void)state;
    memset(&r, 0, sizeof r);
    r.bytes = PAGE;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS;
    r.align = 16 * PAGE;
    r.hint = 0x211000;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_OK);
    assert_int_equal(va, 0x4f0000);
    r.hint = 0x210000;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_OK);
    assert_int_equal(va, 0x210000);
}

static void limits_hold(void **state)
{
    struct mm_vma_limits l = {8 * PAGE, 4 * PAGE, 3 * PAGE, 2 * PAGE, 3};
    struct mm_vma_totals t;

    (void)state;
    mm_vma_set_limits(&f->space, &l);
    assert_int_equal(map(0x200000, 5 * PAGE, 3, MM_VMA_MAP_FIXED), MM_VMA_ENOMEM); /* data */
    assert_int_equal(map(0x200000, 9 * PAGE, 1, MM_VMA_MAP_FIXED), MM_VMA_ENOMEM); /* total */
    assert_int_equal(map(0x200000, 4 * PAGE, 3, MM_VMA_MAP_FIXED), 0x200000);
    assert_int_equal(map(0x210000, 3 * PAGE, 1, MM_VMA_MAP_FIXED), 0x210000);
    assert_int_equal(mm_vma_mprotect(&f->space, 0x210000, PAGE, 3), MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_mlock(&f->space, 0x200000, 3 * PAGE), MM_VMA_ENOMEM);
    assert_int_equal(map(0x220000, 3 * PAGE, 1, MM_VMA_MAP_LOCKED), MM_VMA_EAGAIN);
    assert_int_equal(mm_vma_mlock(&f->space, 0x200000, 2 * PAGE), MM_VMA_OK);
    assert_int_equal(areas(), 3);
    assert_int_equal(map(0x220000, PAGE, 1, MM_VMA_MAP_FIXED), MM_VMA_ENOMEM); /* areas */
    assert_int_equal(mm_vma_munmap(&f->space, 0x211000, PAGE), MM_VMA_ENOMEM);
    assert_int_equal(mm_vma_mprotect(&f->space, 0x211000, PAGE, 0), MM_VMA_ENOMEM);
    mm_vma_read_totals(&f->space, &t);
    assert_int_equal(t.total, 7);
    assert_int_equal(t.data, 4);
    assert_int_equal(t.locked, 2);
    l.locked = 0;
    mm_vma_set_limits(&f->space, &l);
    assert_int_equal(mm_vma_mlock(&f->space, 0x210000, PAGE), MM_VMA_EPERM);
    assert_int_equal(map(0, PAGE, 1, MM_VMA_MAP_LOCKED), MM_VMA_ENOMEM); /* areas come first */
}

static void a_stack_grows_to_its_limit_and_guard(void **state)
{
    struct mm_vma_limits l = {UINT64_MAX, UINT64_MAX, 40 * PAGE, UINT64_MAX, UINT64_MAX};
    struct mm_vma_totals t;

    (void)state;
    mm_vma_set_limits(&f->space, &l);
    assert_int_equal(map(0x300000, PAGE, 3, MM_VMA_MAP_FIXED | MM_VMA_MAP_GROWSDOWN), 0x300000);
    assert_int_equal(mm_vma_fault(&f->space, 0x2f0000, MM_VMA_WRITE), MM_VMA_FAULT_OK);
    mm_vma_read_totals(&f->space, &t);
    assert_int_equal(t.stack, 17);
    assert_int_equal(mm_vma_fault(&f->space, 0x300fff - 40 * PAGE, MM_VMA_WRITE),
                     MM_VMA_FAULT_GUARD);
    assert_int_equal(map(0x2d0000, PAGE, 3, MM_VMA_MAP_FIXED), 0x2d0000);
    l.stack = UINT64_MAX;
    mm_vma_set_limits(&f->space, &l);
    assert_int_equal(mm_vma_fault(&f->space, 0x2d0000 + 16 * PAGE, MM_VMA_WRITE),
                     MM_VMA_FAULT_GUARD);
    assert_int_equal(mm_vma_fault(&f->space, 0x2d0000 + 17 * PAGE, MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(mm_vma_fault(&f->space, 0x2cf000, MM_VMA_READ), MM_VMA_FAULT_NONE);
    assert_int_equal(mm_vma_fault(&f->space, 0x2d0000, MM_VMA_EXEC), MM_VMA_FAULT_EXEC);
    assert_int_equal(mm_vma_fault(&f->space, UINT64_MAX, MM_VMA_READ), MM_VMA_FAULT_NONE);
}

static void a_locked_stack_grows_to_the_limit_of_locked_memory(void **state)
{
    struct mm_vma_limits l = {UINT64_MAX, UINT64_MAX, UINT64_MAX, 3 * PAGE, UINT64_MAX};

    (void)state;
    mm_vma_set_limits(&f->space, &l);
    assert_int_equal(map(0x300000, 2 * PAGE, 3, MM_VMA_MAP_FIXED | MM_VMA_MAP_GROWSDOWN), 0x300000);
    assert_int_equal(mm_vma_mlock(&f->space, 0x300000, 2 * PAGE), MM_VMA_OK);
    assert_int_equal(mm_vma_fault(&f->space, 0x2fe000, MM_VMA_WRITE), MM_VMA_FAULT_GUARD);
    assert_int_equal(mm_vma_fault(&f->space, 0x2ff000, MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(mm_vma_fault(&f->space, 0x2fe000, MM_VMA_WRITE), MM_VMA_FAULT_GUARD);
    assert_int_equal(mm_vma_munlock(&f->space, 0x2ff000, 3 * PAGE), MM_VMA_OK);
    assert_int_equal(mm_vma_fault(&f->space, 0x2fe000, MM_VMA_WRITE), MM_VMA_FAULT_OK);
}

static void placement_goes_up_or_down_aligned(void **state)
{
    struct mm_vma_request r;
    mm_va_t va;

    (void)state;
    memset(&r, 0, sizeof r);
    r.bytes = 3 * PAGE;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS;
    r.align = 16 * PAGE;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_OK);
    assert_int_equal(va, 0x4f0000);
    f->space.bottom_up = true;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_OK);
    assert_int_equal(va, 0x100000);
    r.align = 0;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_OK);
    assert_int_equal(va, 0x103000);
    r.prot = 3;
    r.hint = 0x200123;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_OK);
    assert_int_equal(va, 0x200000);
    assert_int_equal(areas(), 3); /* the two at the bottom are one */
}

static void the_break_moves_by_bytes(void **state)
{
    (void)state;
    assert_int_equal(mm_vma_install(&f->space, MM_VMA_HEAP, 0x200000, PAGE, 0, 0), MM_VMA_OK);
    assert_int_equal(mm_vma_brk(&f->space, 0), 0x201000);
    assert_int_equal(mm_vma_brk(&f->space, 0x204123), 0x204123);
    assert_int_equal(areas(), 1);
    assert_int_equal(mm_vma_brk(&f->space, 0x1fffff), 0x204123);
    assert_int_equal(map(0x210000, PAGE, 3, MM_VMA_MAP_FIXED), 0x210000);
    assert_int_equal(mm_vma_brk(&f->space, 0x20f001), 0x204123); /* no page between */
    assert_int_equal(mm_vma_brk(&f->space, 0x20f000), 0x20f000);
    assert_int_equal(mm_vma_brk(&f->space, 0x200800), 0x200800);
    assert_int_equal(mm_vma_brk(&f->space, UINT64_MAX), 0x200800);
    assert_int_equal(mm_vma_bytes(mm_vma_find(&f->space, 0x200000)), PAGE);
}

static void totals_go_by_rights(void **state)
{
    static const struct {
        unsigned prot, flags, data, exec;
    } table[] = {
        {0, MM_VMA_MAP_PRIVATE, 0, 0},
        {MM_VMA_READ, MM_VMA_MAP_PRIVATE, 0, 0},
        {MM_VMA_READ | MM_VMA_WRITE, MM_VMA_MAP_PRIVATE, 3, 0},
        {MM_VMA_READ | MM_VMA_EXEC, MM_VMA_MAP_PRIVATE, 0, 3},
        {MM_VMA_READ | MM_VMA_WRITE | MM_VMA_EXEC, MM_VMA_MAP_PRIVATE, 3, 0},
        {MM_VMA_READ | MM_VMA_WRITE, MM_VMA_MAP_SHARED, 0, 0},
        {MM_VMA_READ | MM_VMA_EXEC, MM_VMA_MAP_SHARED, 0, 3},
        {MM_VMA_READ | MM_VMA_WRITE | MM_VMA_EXEC, MM_VMA_MAP_SHARED, 0, 0},
    };
    struct mm_vma_totals t;

    (void)state;
    for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++) {
        const int64_t va = map(0, 3 * PAGE, table[i].prot, table[i].flags);

        assert_true(va > 0);
        mm_vma_read_totals(&f->space, &t);
        assert_int_equal(t.total, 3);
        assert_int_equal(t.data, table[i].data);
        assert_int_equal(t.exec, table[i].exec);
        assert_int_equal(mm_vma_munmap(&f->space, (mm_va_t)va, 3 * PAGE), MM_VMA_OK);
        mm_vma_read_totals(&f->space, &t);
        assert_int_equal(t.total | t.data | t.exec, 0);
    }
}

static void clear_takes_the_break_back(void **state)
{
    (void)state;
    assert_int_equal(mm_vma_install(&f->space, MM_VMA_HEAP, 0x200000, PAGE, 0, 0), MM_VMA_OK);
    assert_int_equal(mm_vma_brk(&f->space, 0x204000), 0x204000);
    mm_vma_clear(&f->space);
    assert_int_equal(areas(), 0);
    assert_int_equal(mm_vma_brk(&f->space, 0), 0x200000);
    assert_int_equal(mm_vma_brk(&f->space, 0x201000), 0x201000);
}

static void add_text(void *ctx, const char *line, size_t length)
{
    char *text = ctx;

    memcpy(text + strlen(text), line, length + 1);
    strcat(text, "\n");
}

static void the_list_reads_like_proc_maps(void **state)
{
    struct mm_vma_request r;
    char text[1024] = "", cut[10];
    mm_va_t va;

    (void)state;
    memset(&r, 0, sizeof r);
    r.hint = 0x200000;
    r.bytes = PAGE;
    r.prot = MM_VMA_READ | MM_VMA_EXEC;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_FIXED;
    r.file = (void *)(uintptr_t) "/bin/true";
    r.offset = 0x3000;
    assert_int_equal(mm_vma_mmap(&f->space, &r, &va), MM_VMA_OK);
    assert_int_equal(map(0x300000, PAGE, 2, MM_VMA_MAP_FIXED | MM_VMA_MAP_GROWSDOWN), 0x300000);
    mm_vma_list(&f->space, add_text, text);
    assert_string_equal(
        text, "00200000-00201000 r-xp 00003000 00:00 0                                  /bin/true\n"
              "00300000-00301000 -w-p 00000000 00:00 0                                  [stack]\n");
    assert_int_equal(mm_vma_format(&f->space, mm_vma_find(&f->space, va), cut, sizeof cut), 82);
    assert_string_equal(cut, "00200000-");
}

static bool count_area(void *ctx, const struct mm_vma *vma)
{
    (void)vma;
    return ++*(unsigned *)ctx < 3;
}

static void a_walk_sees_what_touches_the_range(void **state)
{
    unsigned seen = 0;

    (void)state;
    for (unsigned i = 0; i < 6; i++)
        assert_true(map(0x200000 + i * 0x2000, PAGE, 3, MM_VMA_MAP_FIXED) > 0);
    assert_int_equal(mm_vma_walk(&f->space, 0x200800, 0x202001, count_area, &seen), 2);
    seen = 0;
    assert_int_equal(mm_vma_walk(&f->space, 0, UINT64_MAX, count_area, &seen),
                     3); /* it stops when told */
}

static void hooks_come_in_groups(void **state)
{
    struct mm_vma_system sys;
    struct mm_vma_hooks h;

    (void)state;
    hooks_of(&h);
    h.area_free = NULL;
    assert_int_equal(mm_vma_system_init(&sys, &h), MM_ERR_INVALID);
    hooks_of(&h);
    h.file_page = (enum mm_status(*)(void *, void *, uint64_t, bool, mm_pa_t *))(uintptr_t)1;
    assert_int_equal(mm_vma_system_init(&sys, &h), MM_ERR_INVALID);
    assert_int_equal(mm_vma_system_init(&sys, NULL), MM_ERR_INVALID);
    hooks_of(&h);
    h.frame_alloc = (mm_pa_t(*)(void *, bool))(uintptr_t)1;
    assert_int_equal(mm_vma_system_init(&sys, &h), MM_ERR_INVALID);
}

static void configurations_are_checked(void **state)
{
    struct mm_vma_global g = {0x4ff000, 0x1000, PAGE, MM_VMA_READ | MM_VMA_EXEC};
    struct mm_vma_space space;
    struct mm_vma_config c;

    (void)state;
    config_of(&c);
    c.low = c.top;
    assert_int_equal(mm_vma_space_init(&space, &f->sys, &c), MM_ERR_INVALID);
    config_of(&c);
    c.mmap_base = c.top + PAGE;
    assert_int_equal(mm_vma_space_init(&space, &f->sys, &c), MM_ERR_INVALID);
    config_of(&c);
    c.brk = 1;
    assert_int_equal(mm_vma_space_init(&space, &f->sys, &c), MM_ERR_INVALID);
    assert_int_equal(mm_vma_system_global(&f->sys, &g), MM_OK);
    config_of(&c);
    assert_int_equal(mm_vma_space_init(&space, &f->sys, &c), MM_ERR_INVALID); /* below the top */
    c.top = c.mmap_base = 0x4ff000;
    c.random_pages = 9;
    c.brk = 0x200000;
    assert_int_equal(mm_vma_space_init(&space, &f->sys, &c), MM_OK);
    assert_int_equal(space.base, 0x4ff - 8);
    assert_int_equal(mm_vma_brk(&space, 0), 0x208000);
    assert_int_equal(mm_vma_map_access(&space.map, 0x4ff123), 1 | 4 | 8);
    assert_int_equal(mm_vma_munmap(&space, 0x4ff000, PAGE), MM_VMA_EINVAL); /* out of reach */
    mm_vma_clear(&space);
    assert_int_equal(mm_vma_map_access(&space.map, 0x4ff123), 1 | 4 | 8);
    assert_true(mm_vma_leave(&space));
    g.va = 1;
    assert_int_equal(mm_vma_system_global(&f->sys, &g), MM_ERR_ALIGN);
    g.va = 0x600000;
    g.bytes = 0;
    assert_int_equal(mm_vma_system_global(&f->sys, &g), MM_ERR_INVALID);
    g.bytes = 2 * PAGE;
    g.pa = ~(mm_pa_t)0 - PAGE + 1;
    assert_int_equal(mm_vma_system_global(&f->sys, &g), MM_ERR_INVALID); /* its frames wrap */
    g.pa = 0x1000;
    g.va = 0x4fe000;
    assert_int_equal(mm_vma_system_global(&f->sys, &g), MM_ERR_EXISTS);
    g.va = 0x4ff000;
    assert_int_equal(mm_vma_system_global(&f->sys, &g), MM_ERR_EXISTS);
    assert_int_equal(f->sys.global_count, 1);
    g.va = 0x600000;
    g.bytes = PAGE;
    for (unsigned i = 1; i < MM_VMA_GLOBALS; i++, g.va += PAGE)
        assert_int_equal(mm_vma_system_global(&f->sys, &g), MM_OK);
    assert_int_equal(mm_vma_system_global(&f->sys, &g), MM_ERR_LIMIT);
    f->sys.global_count = 0;
}

static void users_and_references_count(void **state)
{
    struct mm_vma_space *child = aligned_alloc(64, sizeof *child);

    (void)state;
    assert_true(map(0x200000, PAGE, 3, MM_VMA_MAP_FIXED) > 0);
    assert_int_equal(mm_vma_fork(child, &f->space, NULL), MM_VMA_OK);
    mm_vma_join(child);
    mm_vma_get(child);
    assert_false(mm_vma_leave(child));
    assert_non_null(mm_vma_find(child, 0x200000));
    assert_false(
        mm_vma_leave(child)); /* the last user: all is unmapped, the reference keeps the struct */
    assert_null(mm_vma_find(child, 0x200000));
    assert_false(mm_vma_leave(child)); /* one too many */
    assert_true(mm_vma_put(child));
    assert_false(mm_vma_put(child));
    free(child);
}

static void inherited_memory_does_not_merge_with_new(void **state)
{
    struct mm_vma_space *child = aligned_alloc(64, sizeof *child), *parent = &f->space;
    struct mm_vma_request r;
    mm_va_t va;

    (void)state;
    assert_true(map(0x200000, PAGE, 3, MM_VMA_MAP_FIXED) > 0);
    assert_int_equal(mm_vma_fault(parent, 0x200000, MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(mm_vma_fork(child, parent, NULL), MM_VMA_OK);
    assert_true(map(0x201000, PAGE, 3, MM_VMA_MAP_FIXED) > 0);
    assert_int_equal(areas(), 1);
    assert_int_equal(mm_vma_find(child, 0x200000)->anon & 1, 1);
    memset(&r, 0, sizeof r);
    r.hint = 0x201000;
    r.bytes = PAGE;
    r.prot = 3;
    r.flags = MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS | MM_VMA_MAP_FIXED;
    assert_int_equal(mm_vma_mmap(child, &r, &va), MM_VMA_OK);
    assert_int_equal(child->map.count, 2);
    /* but growth in place takes in what has no identity, and not the other way round */
    assert_int_equal(mm_vma_munmap(child, 0x201000, PAGE), MM_VMA_OK);
    for (r.hint = 0x1fe000; r.hint <= 0x202000; r.hint += 4 * PAGE)
        assert_int_equal(mm_vma_mmap(child, &r, &va), MM_VMA_OK);
    assert_int_equal(mm_vma_mremap(child, 0x200000, PAGE, 2 * PAGE, 0, 0, &va), MM_VMA_OK);
    assert_int_equal(mm_vma_bytes(mm_vma_find(child, 0x200000)), 3 * PAGE);
    assert_int_equal(mm_vma_mremap(child, 0x1fe000, PAGE, 2 * PAGE, 0, 0, &va), MM_VMA_OK);
    assert_int_equal(child->map.count, 2);
    assert_true(mm_vma_leave(child));
    free(child);
}

static void a_source_that_stays_mapped_is_as_new(void **state)
{
    mm_va_t va;

    (void)state;
    assert_true(map(0x200000, PAGE, 3, MM_VMA_MAP_FIXED) > 0);
    assert_int_equal(mm_vma_fault(&f->space, 0x200000, MM_VMA_WRITE), MM_VMA_FAULT_OK);
    assert_int_equal(mm_vma_mlock(&f->space, 0x200000, PAGE), MM_VMA_OK);
    assert_int_equal(mm_vma_mremap(&f->space, 0x200000, PAGE, PAGE, 5, 0, &va), MM_VMA_OK);
    assert_int_equal(va, 0x4ff000);
    assert_int_equal(mm_vma_find(&f->space, 0x200000)->anon, 0);
    assert_int_equal(mm_vma_find(&f->space, 0x200000)->flags & MM_VMA_LOCKED, 0);
    assert_int_not_equal(mm_vma_find(&f->space, va)->anon, 0);
}

static void presets_have_their_rights(void **state)
{
    (void)state;
    assert_int_equal(mm_vma_install(&f->space, MM_VMA_CODE, 0x110000, PAGE, 0, 0), MM_VMA_OK);
    assert_int_equal(mm_vma_install(&f->space, MM_VMA_DATA, 0x120000, PAGE, 0, 0), MM_VMA_OK);
    assert_int_equal(mm_vma_install(&f->space, MM_VMA_STACK, 0x180000, PAGE, 0, 0), MM_VMA_OK);
    assert_int_equal(mm_vma_install(&f->space, MM_VMA_IO, 0x140000, PAGE, 0xfee00000, 0),
                     MM_VMA_OK);
    assert_int_equal(
        mm_vma_install(&f->space, MM_VMA_LINEAR, 0x141000, PAGE, 0xfee01000, MM_VMA_READ),
        MM_VMA_OK);
    assert_int_equal(mm_vma_map_access(&f->space.map, 0x110000), 5);
    assert_int_equal(mm_vma_map_access(&f->space.map, 0x120000), 3);
    assert_int_equal(mm_vma_map_access(&f->space.map, 0x180000), 3 | 0x20);
    assert_int_equal(mm_vma_find(&f->space, 0x140000)->offset, 0xfee00);
    assert_int_equal(areas(), 5); /* linear areas do not merge */
    assert_int_equal(mm_vma_install(&f->space, MM_VMA_DATA, 0x110000, PAGE, 0, 0), MM_VMA_EEXIST);
    assert_int_equal(mm_vma_install(&f->space, MM_VMA_DATA, 0x111001, PAGE, 0, 0), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_install(&f->space, MM_VMA_DATA, 0x111000, 0, 0, 0), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_install(&f->space, MM_VMA_LINEAR, 0x111000, PAGE, 5, 0), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_install(&f->space, (enum mm_vma_preset)99, 0x111000, PAGE, 0, 0),
                     MM_VMA_EINVAL);
    assert_int_equal(mm_vma_madvise(&f->space, 0x140000, PAGE, MM_VMA_ADV_DODUMP), MM_VMA_EINVAL);
    assert_int_equal(mm_vma_madvise(&f->space, 0x140000, PAGE, MM_VMA_ADV_DONTNEED), MM_VMA_EINVAL);
}

static void map_functions_refuse_what_is_wrong(void **state)
{
    struct mm_vma area, *a = &area;
    mm_va_t va = 3;

    (void)state;
    memset(a, 0, sizeof *a);
    assert_int_equal(mm_vma_map_insert(&f->space.map, NULL), MM_ERR_INVALID);
    assert_int_equal(mm_vma_map_insert(&f->space.map, a), MM_ERR_INVALID); /* start == end */
    a->end = UINTPTR_MAX;
    a->start = 1;
    assert_int_equal(mm_vma_map_insert(&f->space.map, a),
                     sizeof(void *) == 8 ? MM_ERR_INVALID : MM_OK);
    assert_int_equal(mm_vma_map_erase(&f->space.map, NULL), MM_ERR_NOENT);
    assert_int_equal(mm_vma_map_lowest(&f->space.map, 0, 0x1000, 0, 0, &va), MM_ERR_INVALID);
    assert_int_equal(mm_vma_map_highest(&f->space.map, 0, 0x1000, PAGE, 3, &va), MM_ERR_INVALID);
    assert_int_equal(mm_vma_map_lowest(&f->space.map, 0x2000, 0x1000, PAGE, 0, &va), MM_ERR_NOENT);
    assert_int_equal(mm_vma_map_highest(&f->space.map, 0, UINT64_MAX, UINT64_MAX, 0, &va),
                     MM_ERR_NOENT);
    assert_int_equal(va, 3);
    assert_null(mm_vma_map_find(&f->space.map, UINT64_MAX));
    assert_int_equal(mm_vma_map_access(&f->space.map, 0), -1);
}

/* Only what counts as data makes room for data at the target. */
static void a_move_over_data_or_over_other_memory(void **state)
{
    struct mm_vma_limits limits = f->space.limits;
    mm_va_t va;

    (void)state;
    limits.data = 8 * PAGE;
    mm_vma_set_limits(&f->space, &limits);
    for (unsigned data = 0; data < 2; data++) {
        mm_vma_clear(&f->space);
        assert_int_equal(map(0x200000, 4 * PAGE, 3, MM_VMA_MAP_FIXED), 0x200000);
        assert_int_equal(map(0x300000, 4 * PAGE, data ? 3 : 1, MM_VMA_MAP_FIXED), 0x300000);
        if (!data)
            assert_int_equal(map(0x400000, 2 * PAGE, 3, MM_VMA_MAP_FIXED), 0x400000);
        assert_int_equal(
            mm_vma_mremap(&f->space, 0x200000, 4 * PAGE, 4 * PAGE,
                          MM_VMA_REMAP_MAYMOVE | MM_VMA_REMAP_FIXED | MM_VMA_REMAP_DONTUNMAP,
                          0x300000, &va),
            data ? MM_VMA_OK : MM_VMA_ENOMEM);
        assert_int_equal(mm_vma_find(&f->space, 0x300000)->flags & MM_VMA_PROT, data ? 3 : 1);
    }
}

/* Copies areas until *ctx of them are through; then it fails, and must not be asked again. */
static struct mm_vma *copy_until(void *ctx, struct mm_vma *area, bool *failed)
{
    unsigned *left = ctx;

    assert_false(*failed);
    *failed = (*left)-- == 0;
    return *failed ? NULL : area;
}

static void a_copy_stops_where_it_is_told(void **state)
{
    static struct mm_vma area[60];
    struct mm_vma_map map, copy;

    (void)state;
    mm_vma_map_init(&map, &f->source.hooks);
    mm_vma_map_init(&copy, &f->source.hooks);
    for (unsigned i = 0; i < 60; i++) {
        area[i].start = 100 + 3 * i;
        area[i].end = area[i].start + 2;
        assert_int_equal(mm_vma_map_insert(&map, &area[i]), MM_OK);
    }
    for (unsigned stop = 0; stop <= 60; stop++) {
        unsigned left = stop;

        assert_int_equal(mm_vma_map_dup(&copy, &map, copy_until, &left),
                         stop < 60 ? MM_ERR_NOMEM : MM_OK);
        assert_int_equal(copy.count, stop);
        assert_int_equal(mm_vma_map_check(&copy), MM_OK);
        mm_vma_map_fini(&copy);
    }
    mm_vma_map_fini(&map);
}

/* Everything that can lack memory, lacking it at its first, second, third ... time: nothing has
 * changed then. */
static int call(unsigned which)
{
    mm_va_t va;

    switch (which) {
    case 0:
        return (int)(map(0x300000, PAGE, 3, MM_VMA_MAP_FIXED) < 0 ? MM_VMA_ENOMEM : 0);
    case 1:
        return mm_vma_munmap(&f->space, 0x202000, PAGE);
    case 2:
        return mm_vma_mprotect(&f->space, 0x202000, PAGE, 1);
    case 3:
        return mm_vma_mremap(&f->space, 0x202000, PAGE, PAGE, 3, 0x310000, &va);
    case 4:
        return mm_vma_mremap(&f->space, 0x200000, 0x40000, 0x40000, 3, 0x310000, &va);
    case 5:
        return mm_vma_madvise(&f->space, 0x202000, PAGE, MM_VMA_ADV_RANDOM);
    case 6:
        return mm_vma_mlock(&f->space, 0x202000, PAGE);
    case 7:
        return (int)(map(0, PAGE, 3, MM_VMA_MAP_SHARED) < 0 ? MM_VMA_ENOMEM : 0);
    default:
        return mm_vma_install(&f->space, MM_VMA_DATA, 0x300000, PAGE, 0, 0);
    }
}

static void a_call_without_memory_changes_nothing(void **state)
{
    (void)state;
    for (unsigned which = 0; which <= 9; which++)
        for (uint64_t n = 1;; n++) {
            struct mm_vma_space *copy = aligned_alloc(64, sizeof *copy);
            char before[8192] = "", after[8192] = "";
            uint64_t calls;
            int result;

            /* 40 areas that fill more than a leaf, none of them with memory to spare */
            mm_vma_clear(&f->space);
            for (unsigned i = 0; i < 40; i++)
                assert_true(map(0x200000 + i * 0x1800 / PAGE * PAGE * 4, 4 * PAGE, 3,
                                MM_VMA_MAP_FIXED) > 0);
            mm_vma_map_trim(&f->space.map);
            while (f->space.spare != NULL)
                area_free(NULL, mmi_vma_spare(&f->space));
            mm_vma_list(&f->space, add_text, before);
            memset(&f->fail, 0, sizeof f->fail);
            memset(&f->source.fail, 0, sizeof f->source.fail);
            f->fail.fail_at = f->source.fail.fail_at = n;
            result = which == 9 ? mm_vma_fork(copy, &f->space, NULL) : call(which);
            calls = f->fail.calls > f->source.fail.calls ? f->fail.calls : f->source.fail.calls;
            f->fail.fail_at = f->source.fail.fail_at = 0;
            if (calls >= n) {
                assert_int_equal(result, which == 5 ? MM_VMA_EAGAIN : MM_VMA_ENOMEM);
                mm_vma_list(&f->space, add_text, after);
                assert_string_equal(before, after);
            } else {
                assert_int_equal(result, MM_VMA_OK);
                if (which == 9)
                    assert_true(mm_vma_leave(copy));
            }
            assert_int_equal(mm_vma_check(&f->space), MM_OK);
            free(copy);
            if (calls < n) {
                assert_true(n > 1 || which == 0); /* memory was needed */
                break;
            }
        }
}

/* Rule 3 of the manual: also without rights, and before its first page. Untouched memory that
 * becomes read-only would not count as committed any more. */
static void a_grown_stack_has_an_identity(void **state)
{
    (void)state;
    for (unsigned grown = 0; grown < 2; grown++) {
        mm_vma_clear(&f->space);
        assert_int_equal(map(0x300000, PAGE, 0, MM_VMA_MAP_FIXED | MM_VMA_MAP_GROWSDOWN), 0x300000);
        assert_int_equal(mm_vma_fault(&f->space, grown ? 0x2ff000 : 0x300000, MM_VMA_READ),
                         MM_VMA_FAULT_READ);
        assert_int_equal(mm_vma_mprotect(&f->space, 0x300000, PAGE, 3), MM_VMA_OK);
        assert_int_equal(mm_vma_mprotect(&f->space, 0x300000, PAGE, 1), MM_VMA_OK);
        assert_int_equal(mm_vma_find(&f->space, 0x300000)->flags & MM_VMA_ACCOUNT,
                         grown ? MM_VMA_ACCOUNT : 0);
    }
}

/* Rule 1 of the manual, wherever in the map the three areas stand, also where a leaf ends between
 * them: an identity is kept, and of two the left one's area takes the new one. */
static void joined_memory_keeps_its_identity(void **state)
{
    const mm_va_t base = 0x200000, step = 3 * PAGE;
    const struct mm_vma *whole;

    (void)state;
    for (unsigned touched = 1; touched <= 3; touched++) /* the left, the right, both */
        for (unsigned k = 0; k + 1 < 60; k++) {
            mm_va_t left = base + k * step, right = left + step;

            mm_vma_clear(&f->space);
            for (unsigned i = 0; i < 60; i++)
                assert_true(map(base + i * step, PAGE, 3, MM_VMA_MAP_FIXED) > 0);
            if ((touched & 1) != 0)
                assert_int_equal(mm_vma_fault(&f->space, left, MM_VMA_WRITE), MM_VMA_FAULT_OK);
            if ((touched & 2) != 0)
                assert_int_equal(mm_vma_fault(&f->space, right, MM_VMA_WRITE), MM_VMA_FAULT_OK);
            assert_true(map(left + PAGE, 2 * PAGE, 3, MM_VMA_MAP_FIXED) > 0);
            assert_int_equal(areas(), touched == 3 ? 60 : 59);
            whole = mm_vma_find(&f->space, left);
            assert_int_equal(mm_vma_bytes(whole), touched == 3 ? step : step + PAGE);
            assert_int_equal(mm_vma_mprotect(&f->space, left, mm_vma_bytes(whole), 1), MM_VMA_OK);
            assert_true((mm_vma_find(&f->space, left)->flags & MM_VMA_ACCOUNT) != 0);
        }
}

#if UINTPTR_MAX > 0xffffffff
#define STRETCH_PAGES 4096u
static unsigned stretch[STRETCH_PAGES]; /* rights + 1, or 0 */
static struct mm_test_rng stretch_rng;

static unsigned stretch_below(unsigned n)
{
    return (unsigned)mm_test_below(&stretch_rng, n);
}

/* Areas that the pages make: all that touch and are alike have joined. */
static uint64_t stretch_areas(void)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < STRETCH_PAGES; i++)
        count += stretch[i] != 0 && (i == 0 || stretch[i - 1] != stretch[i]);
    return count;
}

static void stretch_set(unsigned from, unsigned to, unsigned value)
{
    for (unsigned i = from; i < to; i++)
        stretch[i] = value;
}

/* One random call over pages from..to of the window at `base`. */
static void stretch_call(mm_va_t base, unsigned from, unsigned to, unsigned prot)
{
    mm_va_t va = base + from * PAGE;
    unsigned end = from;

    switch (stretch_below(4)) {
    case 0:
        assert_int_equal(mm_vma_munmap(&f->space, va, (to - from) * PAGE), MM_VMA_OK);
        stretch_set(from, to, 0);
        break;
    case 1:
        while (end < to && stretch[end] != 0)
            end++;
        assert_int_equal(mm_vma_mprotect(&f->space, va, (to - from) * PAGE, prot),
                         end == to ? MM_VMA_OK : MM_VMA_ENOMEM);
        stretch_set(from, end, prot + 1);
        break;
    default:
        assert_int_equal(map(va, (to - from) * PAGE, prot, MM_VMA_MAP_FIXED), va);
        stretch_set(from, to, prot + 1);
    }
}

static void what_lies_below_all_others_gets_a_leaf_of_its_own(void **state)
{
    static struct mm_vma area[41];
    struct mm_vma_map map;

    (void)state;
    mm_vma_map_init(&map, &f->source.hooks);
    for (unsigned i = 0; i < 41; i++) {
        area[i].start = i < 40 ? ((uintptr_t)1 << 32) + 3 * i : 100;
        area[i].end = area[i].start + 2;
        assert_int_equal(mm_vma_map_insert(&map, &area[i]), MM_OK);
        assert_int_equal(mm_vma_map_check(&map), MM_OK);
    }
    for (unsigned i = 0; i < 41; i++)
        assert_ptr_equal(mm_vma_map_find(&map, mm_vma_start(&area[i])), &area[i]);
    mm_vma_map_fini(&map);
}

/* A leaf's pages share the bits from 2^32 up: calls on both sides of such a border, and across it,
 * do as elsewhere. */
static void calls_cross_the_border_of_a_stretch(void **state)
{
    const mm_va_t base = (UINT64_C(1) << (32 + MM_PAGE_SHIFT)) - STRETCH_PAGES / 2 * PAGE;
    const struct mm_vma *vma;
    struct mm_vma_config c;

    (void)state;
    assert_true(mm_vma_leave(&f->space));
    config_of(&c);
    c.top = c.mmap_base = UINT64_C(1) << 46;
    assert_int_equal(mm_vma_space_init(&f->space, &f->sys, &c), MM_OK);
    memset(stretch, 0, sizeof stretch);
    stretch_rng = mm_test_rng(mm_test_seed(), 1);
    for (unsigned n = 0; n < 20000; n++) {
        unsigned from = stretch_below(STRETCH_PAGES), to;

        if (stretch_below(4) == 0) /* at the border */
            from = STRETCH_PAGES / 2 - 4 + stretch_below(8);
        to = from + 1 + stretch_below(stretch_below(8) == 0 ? 60 : 4);
        to = to < STRETCH_PAGES ? to : STRETCH_PAGES;
        stretch_call(base, from, to, stretch_below(4) % 3);
        assert_int_equal(areas(), stretch_areas());
        if (n % 256 != 255)
            continue;
        for (unsigned i = 0; i < STRETCH_PAGES; i++) {
            vma = mm_vma_find(&f->space, base + i * PAGE);
            assert_int_equal(vma == NULL ? 0 : (vma->flags & MM_VMA_PROT) + 1, stretch[i]);
        }
        assert_int_equal(mm_vma_check(&f->space), MM_OK);
    }
}
#endif

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(mmap_refuses_bad_requests),
        T(the_last_page_before_the_top_is_mapped),
        T(semaphores_leave_no_mark),
        T(ranges_are_checked),
        T(a_range_beyond_the_top_ends_in_a_hole),
        T(a_hint_is_aligned_as_asked),
        T(limits_hold),
        T(a_stack_grows_to_its_limit_and_guard),
        T(a_locked_stack_grows_to_the_limit_of_locked_memory),
        T(placement_goes_up_or_down_aligned),
        T(the_break_moves_by_bytes),
        T(totals_go_by_rights),
        T(clear_takes_the_break_back),
        T(the_list_reads_like_proc_maps),
        T(a_walk_sees_what_touches_the_range),
        T(hooks_come_in_groups),
        T(configurations_are_checked),
        T(users_and_references_count),
        T(inherited_memory_does_not_merge_with_new),
        T(a_source_that_stays_mapped_is_as_new),
        T(presets_have_their_rights),
        T(map_functions_refuse_what_is_wrong),
        T(a_call_without_memory_changes_nothing),
        T(a_move_over_data_or_over_other_memory),
        T(a_copy_stops_where_it_is_told),
        T(a_grown_stack_has_an_identity),
        T(joined_memory_keeps_its_identity),
#if UINTPTR_MAX > 0xffffffff
        T(what_lies_below_all_others_gets_a_leaf_of_its_own),
        T(calls_cross_the_border_of_a_stretch),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

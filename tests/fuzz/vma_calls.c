/* Any sequence of calls, accesses, forks, evictions and failing hooks of mm_vma against a plain
 * array of pages: what is mapped where, with which rights, and what stands there. */
#include "fuzz.h"
#define MM_ASSERT(x) fuzz_require(x)
#define MM_VMA_STATIC
#define MM_VMA_IMPLEMENTATION
#include "mm_vma.h"

#define SPACES 3u
#define PAGES  96u
#define BASE   UINT64_C(0xfffffff0) /* page number of the first: a border of leaves lies within */
#define FRAMES 512u
#define SLOTS  512u
#define PAGE   ((uint64_t)1 << MM_PAGE_SHIFT)

struct page {
    bool mapped, shared;
    unsigned prot, index; /* index: in the one file */
    unsigned value;       /* of private memory */
};

struct entry {
    unsigned frame, slot, prot; /* frame, slot: number + 1 */
    bool dirty;
};

static struct mm_vma_system sys;
static struct mm_vma_space spaces[SPACES];
static bool alive[SPACES];
static struct page model[SPACES][PAGES];
static struct entry tables[SPACES][PAGES];
static struct mm_vma_frame records[FRAMES];
static unsigned content[FRAMES], slot_content[SLOTS], slot_refs[SLOTS];
static bool used[FRAMES];
static unsigned file_content[2 * PAGES], file_frames[2 * PAGES], file_refs[2 * PAGES];
static unsigned fail_in; /* the hook that fails; 0: none */
static long memory;
static char the_file;

static bool fails(void)
{
    return fail_in != 0 && --fail_in == 0;
}

static void *take(size_t size)
{
    if (fails())
        return NULL;
    memory++;
    return aligned_alloc(MM_VMA_CACHE_LINE, size);
}

static void give(void *object)
{
    memory--;
    free(object);
}

static struct mm_vma_node *node_alloc(void *ctx)
{
    (void)ctx;
    return take(sizeof(struct mm_vma_node));
}

static void node_free(void *ctx, struct mm_vma_node *node)
{
    (void)ctx;
    give(node);
}

static struct mm_vma *area_alloc(void *ctx)
{
    (void)ctx;
    return take(sizeof(struct mm_vma));
}

static void area_free(void *ctx, struct mm_vma *vma)
{
    (void)ctx;
    give(vma);
}

static struct entry *entry_of(void *pt, mm_va_t va)
{
    const uint64_t page = (va >> MM_PAGE_SHIFT) - BASE;
    fuzz_require(page < PAGES);
    return (struct entry *)pt + page;
}

static enum mm_status pt_map(void *ctx, void *pt, mm_va_t va, mm_pa_t pa, unsigned prot)
{
    struct entry *e = entry_of(pt, va),
                 fresh = {(unsigned)(pa >> MM_PAGE_SHIFT) + 1, 0, prot, false};
    (void)ctx;
    if (e->frame == 0 && fails())
        return MM_ERR_NOMEM;
    *e = fresh;
    return MM_OK;
}

static enum mm_status pt_swap(void *ctx, void *pt, mm_va_t va, uint64_t slot)
{
    struct entry *e = entry_of(pt, va), fresh = {0, (unsigned)slot + 1, 0, false};
    (void)ctx;
    if (e->frame == 0 && fails())
        return MM_ERR_NOMEM;
    *e = fresh;
    return MM_OK;
}

static void pt_protect(void *ctx, void *pt, mm_va_t va, unsigned prot)
{
    (void)ctx;
    fuzz_require(entry_of(pt, va)->frame != 0);
    entry_of(pt, va)->prot = prot;
}

static void pt_clear(void *ctx, void *pt, mm_va_t va)
{
    (void)ctx;
    memset(entry_of(pt, va), 0, sizeof(struct entry));
}

static bool pt_next(void *ctx, void *pt, mm_va_t va, mm_va_t end, struct mm_vma_entry *next)
{
    uint64_t page = va >> MM_PAGE_SHIFT, last = end >> MM_PAGE_SHIFT;
    (void)ctx;
    for (page = page < BASE ? BASE : page; page < last && page < BASE + PAGES; page++) {
        const struct entry *e = (const struct entry *)pt + (page - BASE);
        if (e->frame == 0 && e->slot == 0)
            continue;
        next->va = page << MM_PAGE_SHIFT;
        next->pa = e->frame != 0 ? (mm_pa_t)(e->frame - 1) << MM_PAGE_SHIFT : MM_PA_NONE;
        next->slot = e->slot - 1;
        next->prot = e->prot;
        next->dirty = e->dirty;
        return true;
    }
    return false;
}

static void pt_flush(void *ctx, void *pt, mm_va_t va, uint64_t bytes)
{
    (void)ctx, (void)pt, (void)va;
    fuzz_require(bytes != 0);
}

static mm_pa_t frame_take(unsigned value)
{
    for (unsigned f = 1; f < FRAMES; f++)
        if (!used[f]) {
            used[f] = true;
            content[f] = value;
            return (mm_pa_t)f << MM_PAGE_SHIFT;
        }
    return MM_PA_NONE;
}

static mm_pa_t frame_alloc(void *ctx, bool zero)
{
    (void)ctx;
    return fails() ? MM_PA_NONE : frame_take(zero ? 0 : 0xbad);
}

static void frame_free(void *ctx, mm_pa_t pa)
{
    (void)ctx;
    fuzz_require(used[pa >> MM_PAGE_SHIFT] && records[pa >> MM_PAGE_SHIFT].maps == 0);
    used[pa >> MM_PAGE_SHIFT] = false;
}

static void frame_copy(void *ctx, mm_pa_t to, mm_pa_t from)
{
    (void)ctx;
    content[to >> MM_PAGE_SHIFT] = content[from >> MM_PAGE_SHIFT];
}

static struct mm_vma_frame *frame(void *ctx, mm_pa_t pa)
{
    (void)ctx;
    return &records[pa >> MM_PAGE_SHIFT];
}

static enum mm_status file_page(void *ctx, void *file, uint64_t index, bool write, mm_pa_t *pa)
{
    (void)ctx, (void)file, (void)write;
    if (index >= 2 * PAGES)
        return MM_ERR_NOENT;
    if (fails())
        return MM_ERR_NOMEM;
    if (file_refs[index] == 0) {
        *pa = frame_take(file_content[index]);
        if (*pa == MM_PA_NONE)
            return MM_ERR_NOMEM;
        file_frames[index] = (unsigned)(*pa >> MM_PAGE_SHIFT);
    }
    *pa = (mm_pa_t)file_frames[index] << MM_PAGE_SHIFT;
    file_refs[index]++;
    return MM_OK;
}

static void file_page_put(void *ctx, void *file, uint64_t index, mm_pa_t pa, bool dirty)
{
    (void)file;
    fuzz_require(file_refs[index] != 0 && file_frames[index] == pa >> MM_PAGE_SHIFT);
    if (dirty)
        file_content[index] = content[file_frames[index]];
    if (--file_refs[index] == 0) {
        fuzz_require(file_content[index] == content[file_frames[index]]);
        frame_free(ctx, pa);
    }
}

static enum mm_status swap_out(void *ctx, mm_pa_t pa, uint64_t *slot)
{
    (void)ctx;
    for (*slot = 0; *slot < SLOTS && slot_refs[*slot] != 0; ++*slot)
        continue;
    if (*slot == SLOTS || fails())
        return MM_ERR_NOMEM;
    slot_refs[*slot] = 1;
    slot_content[*slot] = content[pa >> MM_PAGE_SHIFT];
    return MM_OK;
}

static enum mm_status swap_in(void *ctx, uint64_t slot, mm_pa_t pa)
{
    (void)ctx;
    if (fails())
        return MM_ERR_NOMEM;
    content[pa >> MM_PAGE_SHIFT] = slot_content[slot];
    return MM_OK;
}

static void swap_dup(void *ctx, uint64_t slot)
{
    (void)ctx;
    slot_refs[slot]++;
}

static void swap_free(void *ctx, uint64_t slot)
{
    (void)ctx;
    fuzz_require(slot_refs[slot] != 0);
    slot_refs[slot]--;
}

/* ---- calls, and what they do to the array ---------------------------------------------------- */

static mm_va_t va_of(unsigned page)
{
    return (BASE + page) << MM_PAGE_SHIFT;
}

static unsigned rights_of(const struct page *m)
{
    return m->prot | ((m->prot & MM_VMA_WRITE) != 0 ? MM_VMA_READ : 0u);
}

/* An access as a program makes it: the table's rights, or faults until they are there. */
static void touch(unsigned s, unsigned p, unsigned need, unsigned value)
{
    struct page *m = &model[s][p];
    struct entry *e = &tables[s][p];
    const bool armed = fail_in != 0;
    enum mm_vma_fault fault = MM_VMA_FAULT_OK;

    for (unsigned tries = 0; fault == MM_VMA_FAULT_OK && tries < 4; tries++) {
        if (e->frame != 0 && (e->prot & need) != 0)
            break;
        fault = mm_vma_fault(&spaces[s], va_of(p) + value % PAGE, need);
    }
    if (fault == MM_VMA_FAULT_NOMEM) {
        fuzz_require(armed);
        return;
    }
    if (!m->mapped || (rights_of(m) & need) == 0) {
        fuzz_require(fault == (!m->mapped             ? MM_VMA_FAULT_NONE
                               : need == MM_VMA_READ  ? MM_VMA_FAULT_READ
                               : need == MM_VMA_WRITE ? MM_VMA_FAULT_WRITE
                                                      : MM_VMA_FAULT_EXEC));
        return;
    }
    if (m->shared && m->index >= 2 * PAGES) {
        fuzz_require(fault == MM_VMA_FAULT_BUS);
        return;
    }
    fuzz_require(fault == MM_VMA_FAULT_OK && e->frame != 0 && (e->prot & need) != 0);
    fuzz_require((e->prot & ~rights_of(m)) == 0);
    if (need == MM_VMA_WRITE)
        e->dirty = true, content[e->frame - 1] = value;
    else if (!m->shared)
        fuzz_require(content[e->frame - 1] == m->value);
    if (m->shared)
        fuzz_require(file_frames[m->index] == e->frame - 1);
    else if (need == MM_VMA_WRITE)
        m->value = value;
}

static void set(unsigned s, unsigned p, unsigned n, bool shared, unsigned prot, unsigned index)
{
    for (unsigned i = 0; i < n; i++) {
        const struct page page = {true, shared, prot, index + i, 0};
        model[s][p + i] = page;
    }
}

static bool is_free(unsigned s, unsigned p, unsigned n)
{
    for (unsigned i = p; i < p + n; i++)
        if (model[s][i].mapped)
            return false;
    return true;
}

static void map(unsigned s, unsigned p, unsigned n, unsigned how)
{
    static const unsigned fixed[] = {0, MM_VMA_MAP_FIXED, MM_VMA_MAP_FIXED_NOREPLACE,
                                     MM_VMA_MAP_FIXED | MM_VMA_MAP_POPULATE};
    const bool shared = (how & 0x40) != 0, armed = fail_in != 0;
    const unsigned place = how >> 4 & 3;
    struct mm_vma_request r;
    unsigned at = p;
    mm_va_t va = 0;
    int result;

    memset(&r, 0, sizeof r);
    r.hint = (how & 0x80) != 0 && place == 0 ? 0 : va_of(p);
    r.bytes = n * PAGE - (how & 0x80 ? 1 : 0);
    r.prot = how & 7;
    r.flags =
        fixed[place] | (shared ? MM_VMA_MAP_SHARED : MM_VMA_MAP_PRIVATE | MM_VMA_MAP_ANONYMOUS);
    r.file = shared ? &the_file : NULL;
    r.offset = shared ? (uint64_t)p * PAGE : 0;
    result = mm_vma_mmap(&spaces[s], &r, &va);
    if (result == MM_VMA_ENOMEM && armed)
        return;
    if (place == 2 && !is_free(s, p, n)) {
        fuzz_require(result == MM_VMA_EEXIST);
        return;
    }
    if (place == 0 && (r.hint == 0 || !is_free(s, p, n))) {
        for (at = PAGES - n + 1; at-- != 0 && !is_free(s, at, n);)
            continue;
        if (at == UINT32_MAX) {
            fuzz_require(result == MM_VMA_ENOMEM);
            return;
        }
    }
    fuzz_require(result == MM_VMA_OK && va == va_of(at));
    set(s, at, n, shared, r.prot, p);
}

static void unmap(unsigned s, unsigned p, unsigned n)
{
    const bool armed = fail_in != 0;
    const int result = mm_vma_munmap(&spaces[s], va_of(p), n * PAGE);

    fuzz_require(result == MM_VMA_OK || (armed && result == MM_VMA_ENOMEM));
    if (result == MM_VMA_OK)
        memset(&model[s][p], 0, n * sizeof(struct page));
}

/* ENOMEM is a hole, up to which all changed, or a failed hook, before which nothing did. */
static void protect(unsigned s, unsigned p, unsigned n, unsigned prot)
{
    const bool armed = fail_in != 0;
    const int result = mm_vma_mprotect(&spaces[s], va_of(p), n * PAGE, prot);
    unsigned i;

    if (armed && fail_in == 0 && result == MM_VMA_ENOMEM)
        return;
    for (i = p; i < p + n && model[s][i].mapped; i++)
        model[s][i].prot = prot;
    fuzz_require(result == (i == p + n ? MM_VMA_OK : MM_VMA_ENOMEM));
}

static void advise(unsigned s, unsigned p, unsigned n, unsigned how)
{
    static const int advices[] = {MM_VMA_ADV_DONTNEED, MM_VMA_ADV_DONTDUMP, MM_VMA_ADV_DODUMP,
                                  MM_VMA_ADV_WILLNEED};
    const bool armed = fail_in != 0;
    const int result = mm_vma_madvise(&spaces[s], va_of(p), n * PAGE, advices[how & 3]);
    bool whole = true;

    if (armed && fail_in == 0 && result == MM_VMA_EAGAIN) /* ENOMEM is for holes */
        return;
    for (unsigned i = p; i < p + n; i++) {
        whole = whole && model[s][i].mapped;
        if ((how & 3) == 0)
            model[s][i].value = 0;
    }
    fuzz_require(result == (whole ? MM_VMA_OK : MM_VMA_ENOMEM));
}

static void move(unsigned s, unsigned p, unsigned n, unsigned to)
{
    struct page moved[PAGES];
    mm_va_t va;
    int result;

    if (to + n > PAGES || (to < p + n && p < to + n))
        return;
    if (fail_in != 0) /* what a failed move leaves is tested elsewhere */
        fail_in = 0;
    result = mm_vma_mremap(&spaces[s], va_of(p), n * PAGE, n * PAGE, 3, va_of(to), &va);
    if (!model[s][p].mapped) {
        fuzz_require(result == MM_VMA_EFAULT);
        return;
    }
    fuzz_require(result == MM_VMA_OK && va == va_of(to));
    memcpy(moved, &model[s][p], n * sizeof *moved);
    for (unsigned i = 0; i < n; i++)
        if (moved[i].mapped) {
            model[s][to + i] = moved[i];
            memset(&model[s][p + i], 0, sizeof(struct page));
        }
}

/* A space comes by fork, or goes. */
static void life(unsigned s, unsigned other)
{
    const bool armed = fail_in != 0;
    int result;

    if (alive[other]) {
        if (other != s) {
            fuzz_require(mm_vma_leave(&spaces[other]));
            alive[other] = false;
        }
        return;
    }
    result = mm_vma_fork(&spaces[other], &spaces[s], tables[other]);
    if (result != MM_VMA_OK) {
        fuzz_require(armed && result == MM_VMA_ENOMEM);
        return;
    }
    alive[other] = true;
    memcpy(model[other], model[s], sizeof model[s]);
}

/* Addresses that no call may accept. */
static void wild(unsigned s, unsigned p, uint64_t far)
{
    const mm_va_t odd = va_of(p) + 1 + far % (PAGE - 1),
                  beyond = va_of(PAGES) + (far & ~(PAGE - 1));
    mm_va_t va;

    fuzz_require(mm_vma_munmap(&spaces[s], odd, PAGE) == MM_VMA_EINVAL);
    fuzz_require(mm_vma_munmap(&spaces[s], va_of(p), 0 - PAGE) == MM_VMA_EINVAL);
    fuzz_require(mm_vma_munmap(&spaces[s], beyond, PAGE) == MM_VMA_EINVAL);
    fuzz_require(mm_vma_mprotect(&spaces[s], odd, PAGE, 1) == MM_VMA_EINVAL);
    fuzz_require(mm_vma_mprotect(&spaces[s], beyond, far, 1) <= 0);
    fuzz_require(mm_vma_madvise(&spaces[s], beyond, far, MM_VMA_ADV_DONTNEED) <= 0);
    fuzz_require(mm_vma_mremap(&spaces[s], odd, PAGE, PAGE, 1, 0, &va) == MM_VMA_EINVAL);
    fuzz_require(mm_vma_mremap(&spaces[s], beyond, far, PAGE, 1, 0, &va) < 0);
    fuzz_require(mm_vma_mremap(&spaces[s], va_of(p), PAGE, PAGE, 3, beyond, &va) == MM_VMA_EINVAL);
    fuzz_require(mm_vma_fault(&spaces[s], beyond, MM_VMA_READ) == MM_VMA_FAULT_NONE);
    fuzz_require(mm_vma_map_find(&spaces[s].map, beyond) == NULL);
}

static void call(struct fuzz_input *in)
{
    const unsigned what = fuzz_byte(in), how = fuzz_byte(in), arg = fuzz_pair(in);
    const unsigned p = arg % PAGES, n = 1 + (arg >> 8) % (PAGES - p), value = arg;
    unsigned s = what >> 4 & 3;

    for (s %= SPACES; !alive[s]; s = (s + 1) % SPACES)
        continue;
    fail_in = what >> 6 == 3 ? 1 + (how >> 5) : 0;
    switch (what & 15) {
    case 0:
    case 1:
    case 2:
        map(s, p, n < 24 ? n : 24, how);
        break;
    case 3:
        unmap(s, p, n);
        break;
    case 4:
        protect(s, p, n, how & 7);
        break;
    case 5:
        advise(s, p, n, how);
        break;
    case 6:
        move(s, p, n, how % PAGES);
        break;
    case 7:
        life(s, how % SPACES);
        break;
    case 8:
    case 9:
        (void)mm_vma_evict(&sys, (mm_pa_t)(1 + (how | arg << 8) % (FRAMES - 1)) << MM_PAGE_SHIFT);
        break;
    case 10:
        wild(s, p, (uint64_t)arg * arg * arg << (how & 31));
        break;
    default:
        touch(s, p, 1u << how % 3, value);
    }
    fail_in = 0;
}

static void begin(void)
{
    struct mm_vma_config config;
    struct mm_vma_hooks h;

    memset(&h, 0, sizeof h);
    h.nodes.alloc = node_alloc;
    h.nodes.free = node_free;
    h.area_alloc = area_alloc;
    h.area_free = area_free;
    h.pt_map = pt_map;
    h.pt_swap = pt_swap;
    h.pt_protect = pt_protect;
    h.pt_clear = pt_clear;
    h.pt_next = pt_next;
    h.pt_flush = pt_flush;
    h.frame_alloc = frame_alloc;
    h.frame_free = frame_free;
    h.frame_copy = frame_copy;
    h.frame = frame;
    h.file_page = file_page;
    h.file_page_put = file_page_put;
    h.swap_out = swap_out;
    h.swap_in = swap_in;
    h.swap_dup = swap_dup;
    h.swap_free = swap_free;
    memset(model, 0, sizeof model);
    memset(records, 0, sizeof records);
    memset(alive, 0, sizeof alive);
    for (unsigned i = 0; i < 2 * PAGES; i++)
        file_content[i] = 1000 + i;
    fuzz_require(mm_vma_system_init(&sys, &h) == MM_OK);
    mm_vma_config_init(&config);
    config.low = config.up_base = va_of(0);
    config.top = config.mmap_base = va_of(PAGES);
    config.pt = tables[0];
    fuzz_require(mm_vma_space_init(&spaces[0], &sys, &config) == MM_OK);
    alive[0] = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};

    begin();
    while (in.at < in.end)
        call(&in);
    for (unsigned s = 0; s < SPACES; s++) {
        if (!alive[s])
            continue;
        fuzz_require(mm_vma_check(&spaces[s]) == MM_OK);
        for (unsigned p = 0; p < PAGES; p++) {
            const struct mm_vma *vma = mm_vma_find(&spaces[s], va_of(p));
            fuzz_require((vma != NULL) == model[s][p].mapped);
            fuzz_require(vma == NULL || (vma->flags & MM_VMA_PROT) == model[s][p].prot);
            touch(s, p, MM_VMA_READ, 0);
        }
    }
    for (unsigned s = 0; s < SPACES; s++)
        if (alive[s])
            fuzz_require(mm_vma_leave(&spaces[s]));
    mm_vma_system_fini(&sys);
    fuzz_require(memory == 0);
    for (unsigned f = 0; f < FRAMES; f++)
        fuzz_require(!used[f]);
    for (unsigned i = 0; i < SLOTS; i++)
        fuzz_require(slot_refs[i] == 0);
    return 0;
}

/* pager.c - where programs' pages come from, and go to: files and the swap disk; see pager.h */
#include "pager.h"
#pragma GCC diagnostic ignored "-Wunused-parameter" /* of hooks */

/* ---- Files: their pages are in a cache of frames while somebody maps them -------------------- */

enum mm_status file_open(struct file *file, const char *name, void *data, uint64_t bytes)
{
    uint64_t i;
    MM_MEMSET(file, 0, sizeof *file);
    file->pages = kmm_alloc((size_t)KMM_PAGES(bytes) * sizeof *file->pages, MM_SLAB_NOWAIT);
    if (file->pages == NULL)
        return MM_ERR_NOMEM;
    for (i = 0; i < KMM_PAGES(bytes); i++) {
        file->pages[i].pa = MM_PA_NONE;
        file->pages[i].maps = 0;
    }
    file->name = name;
    file->data = data;
    file->bytes = bytes;
    file->references = 1;
    MM_LOCK_INIT(&file->lock);
    return MM_OK;
}

void file_close(struct file *file)
{
    (void)kmm_free(file->pages);
    file->pages = NULL;
}

static void hook_get(void *ctx, void *file)
{
    (void)mm_fetch_add(&((struct file *)file)->references, 1);
}

static void hook_put(void *ctx, void *at)
{
    struct file *file = at;
    if (mm_fetch_add(&file->references, 0 - (uintptr_t)1) != 1 || !file->shared_memory)
        return;
    file_close(file);
    (void)kmm_free(file->data);
    (void)kmm_free(file);
}

static const char *hook_name(void *ctx, void *file)
{
    return ((struct file *)file)->name;
}

/* Copies a page from or to the file; its last page ends with the file. */
static void transfer(struct file *file, uint64_t index, mm_pa_t pa, bool write)
{
    unsigned char *data = file->data + (index << MM_PAGE_SHIFT);
    const uint64_t left = file->bytes - (index << MM_PAGE_SHIFT),
                   bytes = left < MM_PAGE_SIZE ? left : MM_PAGE_SIZE;
    MM_MEMCPY(write ? data : kmm_at(pa), write ? kmm_at(pa) : data, bytes);
    *(write ? &file->writes : &file->reads) += 1;
}

static enum mm_status hook_page(void *ctx, void *at, uint64_t index, bool write, mm_pa_t *pa)
{
    struct file *file = at;
    struct file_page *page = &file->pages[index];
    MM_LOCK_STATE_T state;
    mm_pa_t fresh;
    if (index >= KMM_PAGES(file->bytes))
        return MM_ERR_NOENT;
    fresh = kmm_frame_alloc(NULL, true); /* before it is known to be needed: not under the lock */
    MM_LOCK(&file->lock, state);
    if (page->maps == 0 && fresh != MM_PA_NONE) {
        transfer(file, index, fresh, false);
        page->pa = fresh;
        fresh = MM_PA_NONE;
    }
    *pa = page->pa;
    if (*pa != MM_PA_NONE)
        page->maps++;
    MM_UNLOCK(&file->lock, state);
    if (fresh != MM_PA_NONE)
        kmm_frame_free(NULL, fresh);
    return *pa == MM_PA_NONE ? MM_ERR_NOMEM : MM_OK;
}

static void hook_page_put(void *ctx, void *at, uint64_t index, mm_pa_t pa, bool dirty)
{
    struct file *file = at;
    struct file_page *page = &file->pages[index];
    MM_LOCK_STATE_T state;
    bool last;
    MM_LOCK(&file->lock, state);
    if (dirty)
        transfer(file, index, pa, true);
    last = --page->maps == 0;
    if (last)
        page->pa = MM_PA_NONE;
    MM_UNLOCK(&file->lock, state);
    if (last)
        kmm_frame_free(NULL, pa);
}

/* Shared anonymous memory is a file without a name. */
static enum mm_status hook_shared(void *ctx, uint64_t pages, void **at)
{
    struct file *file = kmm_alloc(sizeof *file, MM_SLAB_NOWAIT);
    void *data = kmm_alloc((size_t)(pages << MM_PAGE_SHIFT), MM_SLAB_NOWAIT | MM_SLAB_ZERO);
    if (file == NULL || data == NULL ||
        file_open(file, "[shared]", data, pages << MM_PAGE_SHIFT) != MM_OK) {
        (void)kmm_free(file);
        (void)kmm_free(data);
        return MM_ERR_NOMEM;
    }
    file->shared_memory = true;
    *at = file;
    return MM_OK;
}

/* ---- The swap disk: pages in memory, each with a count of users ------------------------------ */

struct disk disk;

enum mm_status disk_init(uint64_t bytes)
{
    MM_MEMSET(&disk, 0, sizeof disk);
    disk.data = kmm_own(bytes);
    disk.users = kmm_own(KMM_PAGES(bytes) * sizeof *disk.users);
    if (disk.data == NULL || disk.users == NULL)
        return MM_ERR_NOMEM;
    disk.slots = (uintptr_t)(bytes >> MM_PAGE_SHIFT);
    return MM_OK;
}

static enum mm_status swap_out(void *ctx, mm_pa_t pa, uint64_t *slot)
{
    for (uintptr_t tries = 0; tries < disk.slots; tries++) {
        *slot = mm_fetch_add(&disk.rover, 1) % disk.slots;
        if (mm_cas(&disk.users[*slot], 0, 1)) {
            (void)mm_fetch_add(&disk.used, 1);
            MM_MEMCPY(disk.data + *slot * MM_PAGE_SIZE, kmm_at(pa), MM_PAGE_SIZE);
            return MM_OK;
        }
    }
    return MM_ERR_NOMEM;
}

static enum mm_status swap_in(void *ctx, uint64_t slot, mm_pa_t pa)
{
    MM_MEMCPY(kmm_at(pa), disk.data + slot * MM_PAGE_SIZE, MM_PAGE_SIZE);
    (void)mm_fetch_add(&disk.reads, 1);
    return MM_OK;
}

static void swap_dup(void *ctx, uint64_t slot)
{
    (void)mm_fetch_add(&disk.users[slot], 1);
}

static void swap_free(void *ctx, uint64_t slot)
{
    if (mm_fetch_add(&disk.users[slot], 0 - (uintptr_t)1) == 1)
        (void)mm_fetch_add(&disk.used, 0 - (uintptr_t)1);
}

const struct mm_vma_hooks pager = {.file_get = hook_get,
                                   .file_put = hook_put,
                                   .file_name = hook_name,
                                   .file_page = hook_page,
                                   .file_page_put = hook_page_put,
                                   .shared = hook_shared,
                                   .swap_out = swap_out,
                                   .swap_in = swap_in,
                                   .swap_dup = swap_dup,
                                   .swap_free = swap_free};

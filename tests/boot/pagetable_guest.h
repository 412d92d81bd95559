/* pagetable_guest.h - what the programs have in common that build tables for a bare guest under
 * QEMU: the image of its memory with tables, records of accesses, and data. Before it stand BASE,
 * TABLES, DATA and IMAGE_END, MAX_RECORDS and struct record. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE  UINT64_C(4096)
#define MIB   UINT64_C(0x100000)
#define VALUE UINT64_C(0x1122334455660000)

enum { LOAD, STORE, FETCH };

static unsigned char image[IMAGE_END - BASE];
static struct mm_pagetable pt;
static uint64_t next_table = TABLES;
static struct record records[MAX_RECORDS];
static unsigned accesses[MAX_RECORDS], count;

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "# %s\n", what);
        exit(1);
    }
}

static mm_pa_t take(void *ctx, uint64_t bytes)
{
    mm_pa_t table = (next_table + bytes - 1) & ~(bytes - 1);
    (void)ctx;
    next_table = table + bytes;
    must(next_table <= DATA, "tables");
    return table;
}

static void give(void *ctx, mm_pa_t table, uint64_t bytes)
{
    (void)ctx, (void)table, (void)bytes;
}

static void map(mm_va_t va, mm_pa_t pa, uint64_t bytes, uint32_t attr)
{
    must(mm_pagetable_map(&pt, va, pa, bytes, attr, 0, NULL) == MM_OK, "map");
}

/* The image: `head`, from 64 on the records; each page of data begins with `code`, which tells that
 * it was fetched, and has a value of its own. */
static void fill(const void *head, size_t head_bytes, const char *code, size_t code_bytes)
{
    for (uint64_t at = DATA; at < DATA + 2 * MIB; at += PAGE) {
        uint64_t value = VALUE + 0x1000 + (at >> 12 & 0xfff);
        memcpy(image + (at - BASE), code, code_bytes);
        memcpy(image + (at - BASE) + 16, &value, 8);
    }
    must(64 + count * sizeof records[0] <= TABLES - BASE, "room");
    memcpy(image, head, head_bytes);
    memcpy(image + 64, records, count * sizeof records[0]);
}

static int write_image(const char *name)
{
    FILE *f = fopen(name, "wb");
    must(f != NULL && fwrite(image, sizeof image, 1, f) == 1 && fclose(f) == 0, "image");
    return 0;
}

/* Boot maps of any bytes: no adapter reads outside its report, or writes anything where it refuses.
 * The first byte chooses the format; mm_frame.h cleans every map that one accepts. */
#include "fuzz.h"
#define MM_FRAME_IMPLEMENTATION
#include "mm_frame.h"
#include "../../examples/bootmaps/bootmaps.c"

#define MOST 64u

static struct mm_frame_range out[MOST], cleaned[3 * MOST];

/* Physical memory is the input, from address 0. */
static const void *view_input(void *ctx, mm_pa_t pa, size_t size)
{
    const struct fuzz_input *in = (const struct fuzz_input *)ctx;
    const size_t all = (size_t)(in->end - in->at);
    return pa <= all && size <= all - pa ? in->at + pa : NULL;
}

/* Limine's pointers cannot be checked, so they are made here: which are NULL, and the contents,
 * vary. */
static enum mm_status limine(struct fuzz_input *in, size_t capacity, size_t *count)
{
    static uint64_t entry[MOST][3], entries[MOST], response[3];
    for (size_t i = 0; i < MOST; i++) {
        for (size_t k = 0; k < 3; k++)
            entry[i][k] = (uint64_t)fuzz_pair(in) << 48 | fuzz_pair(in);
        entries[i] = fuzz_byte(in) == 0xff ? 0 : (uintptr_t)entry[i];
    }
    response[1] = fuzz_byte(in) % (MOST + 1);
    response[2] = fuzz_byte(in) == 0xff ? 0 : (uintptr_t)entries;
    return bootmap_limine(response, out, capacity, count);
}

static enum mm_status adapt(unsigned format, struct fuzz_input *in, size_t capacity, size_t *count)
{
    const struct bootmap_view view = {view_input, in};
    const size_t size = (size_t)(in->end - in->at);
    switch (format % 7) {
    case 0:
        return bootmap_e820(in->at, size / (20 + format / 7 % 8), 20 + format / 7 % 8, out,
                            capacity, count);
    case 1:
        return bootmap_uefi(in->at, size, 32 + format / 7 * 4, out, capacity, count);
    case 2:
        return bootmap_multiboot2(in->at, size, out, capacity, count);
    case 3:
        return limine(in, capacity, count);
    case 4:
        return bootmap_linux(in->at, size, &view, out, capacity, count);
    case 5:
        return bootmap_pvh(format / 7, &view, out, capacity, count);
    default:
        return bootmap_fdt(in->at, size, out, capacity, count);
    }
}

static void require_clean(size_t count)
{
    size_t got = 0;
    for (size_t i = 0; i < count; i++)
        fuzz_require(out[i].size != 0 && (unsigned)out[i].type < MM_FRAME_TYPES);
    fuzz_require(mm_frame_map_clean(out, count, cleaned, 3 * MOST, &got) == MM_OK);
}

static void require_untouched(void)
{
    for (size_t i = 0; i < sizeof out; i++)
        fuzz_require(((const unsigned char *)out)[i] == 0x5a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    const unsigned format = fuzz_byte(&in);
    const size_t capacity = fuzz_byte(&in) % 4 == 0 ? 3 : MOST;
    size_t count = 12345;
    enum mm_status status;
    memset(out, 0x5a, sizeof out);
    status = adapt(format, &in, capacity, &count);
    if (status == MM_OK) {
        fuzz_require(count <= capacity);
        require_clean(count);
        return 0;
    }
    fuzz_require(status == MM_ERR_LIMIT ? count > capacity : count == 12345);
    require_untouched();
    return 0;
}

/* user.c - the programs that the example kernels run in user mode; see syscall.h */
#include <stdint.h>
#include "syscall.h"
#include "user_port.h"

#define PAGE     4096ul
#define WRONG(n) return 100 + (n)

static int constant = 42; /* in a page of its own: a private page of the image, copied on write */
static char untouched[3 * PAGE];

static void say(const char *text)
{
    long n = 0;
    while (text[n] != 0)
        n++;
    (void)syscall(SYS_WRITE, (long)text, n, 0, 0);
}

static __attribute__((noinline)) unsigned deep(unsigned pages)
{
    volatile char room[PAGE];
    room[0] = (char)pages;
    room[PAGE - 1] = 1;
    return pages == 0 ? 0 : deep(pages - 1) + (unsigned)room[PAGE - 1];
}

static int demand(long pages)
{
    unsigned char *heap = (unsigned char *)syscall(SYS_BRK, 0, 0, 0, 0);
    if (syscall(SYS_BRK, (long)(heap + pages * PAGE), 0, 0, 0) != (long)(heap + pages * PAGE))
        WRONG(0);
    for (long i = 0; i < pages; i++) {
        if (heap[i * PAGE + 5] != 0)
            WRONG(1);
        heap[i * PAGE + 5] = (unsigned char)i;
    }
    for (long i = 0; i < pages; i++)
        if (heap[i * PAGE + 5] != (unsigned char)i)
            WRONG(2);
    if (deep(40) != 40 || constant != 42 || untouched[PAGE] != 0)
        WRONG(3);
    constant++;
    untouched[2 * PAGE] = 1;
    say("    hello from user mode\n");
    return constant;
}

static int clone(void)
{
    volatile unsigned char *p =
        (unsigned char *)syscall(SYS_MMAP, 0, 16 * PAGE, PROT_R | PROT_W, MAP_PRIVATE_ | MAP_ANON_);
    volatile unsigned char *shared =
        (unsigned char *)syscall(SYS_MMAP, 0, PAGE, PROT_R | PROT_W, MAP_SHARED_ | MAP_ANON_);
    for (unsigned i = 0; i < 16; i++)
        p[i * PAGE] = (unsigned char)i;
    if (syscall(SYS_CLONE, 0, 0, 0, 0) == 0) {
        for (unsigned i = 0; i < 16; i++) {
            if (p[i * PAGE] != i)
                WRONG(0);
            p[i * PAGE] = 0xcc;
        }
        constant = 7;
        shared[0] = 99;
        return 5;
    }
    if (syscall(SYS_WAIT, 0, 0, 0, 0) != 5)
        WRONG(1);
    for (unsigned i = 0; i < 16; i++)
        if (p[i * PAGE] != i)
            WRONG(2);
    return constant == 42 && shared[0] == 99 ? 0 : 103;
}

static int violate(void)
{
    volatile char *p =
        (char *)syscall(SYS_MMAP, 0x30000000, PAGE, PROT_R | PROT_W, MAP_PRIVATE_ | MAP_ANON_);
    p[8] = 1;
    if (syscall(SYS_MPROTECT, (long)p, PAGE, PROT_R, 0) != 0 || p[8] != 1)
        WRONG(0);
    p[8] = 2;
    WRONG(1);
}

static int execute(void)
{
    unsigned char *p = (unsigned char *)syscall(SYS_MMAP, 0x30000000, PAGE, PROT_R | PROT_W,
                                                MAP_PRIVATE_ | MAP_ANON_);
    user_return_code(p);
    ((void (*)(void))p)();
    WRONG(0);
}

static int file(long bytes)
{
    volatile unsigned char *p =
        (unsigned char *)syscall(SYS_MMAP, 0, bytes, PROT_R | PROT_W, MAP_SHARED_ | MAP_FILE_);
    volatile unsigned char *q =
        (unsigned char *)syscall(SYS_MMAP, 0, bytes, PROT_R | PROT_W, MAP_PRIVATE_ | MAP_FILE_);
    for (long i = 0; i < bytes; i += (long)PAGE)
        if (p[i] != (unsigned char)(i / (long)PAGE + 1) || q[i] != p[i])
            WRONG(0);
    q[0] = 77; /* stays in this process */
    p[PAGE] = 88;
    return p[0] == 1 && q[PAGE] == 88 ? 0 : 101;
}

static int hog(long pages)
{
    volatile uint64_t *p = (uint64_t *)syscall(SYS_MMAP, 0, pages * (long)PAGE, PROT_R | PROT_W,
                                               MAP_PRIVATE_ | MAP_ANON_);
    if ((long)p < 0 && (long)p > -4096)
        WRONG(0);
    for (long i = 0; i < pages; i++)
        p[i * 512 + (i & 511)] = (uint64_t)i * 0x9e3779b97f4a7c15u;
    for (long i = 0; i < pages; i++)
        if (p[i * 512 + (i & 511)] != (uint64_t)i * 0x9e3779b97f4a7c15u)
            WRONG(1);
    return 0;
}

static int forbidden(void)
{
    long p;
    if (syscall(SYS_MMAP, 0, PAGE, PROT_W | PROT_X, MAP_PRIVATE_ | MAP_ANON_) != -13)
        WRONG(0);
    p = syscall(SYS_MMAP, 0, PAGE, PROT_R | PROT_W, MAP_PRIVATE_ | MAP_ANON_);
    if (syscall(SYS_MPROTECT, p, PAGE, PROT_R | PROT_W | PROT_X, 0) != -13)
        WRONG(1);
    if (syscall(SYS_WRITE, p, 0, 0, 0) != 0 || syscall(SYS_MUNMAP, p, PAGE, 0, 0) != 0)
        WRONG(2);
    if (syscall(SYS_WRITE, p, 1, 0, 0) != -14 || syscall(99, 0, 0, 0, 0) != -38) /* it is gone */
        WRONG(4);
    p = syscall(SYS_MMAP, 0, 2 * PAGE, PROT_X, MAP_PRIVATE_ | MAP_ANON_); /* may be read, too */
    if (*(volatile char *)p != 0 || syscall(SYS_MPROTECT, p + PAGE, PAGE, PROT_X, 0) != 0 ||
        *(volatile char *)(p + PAGE) != 0)
        WRONG(5);
    return syscall(SYS_MMAP, 0, 0, PROT_R, MAP_PRIVATE_ | MAP_ANON_) == -22 ? 0 : 103;
}

static int run(unsigned program, long argument)
{
    switch (program) {
    case PROGRAM_DEMAND:
        return demand(argument);
    case PROGRAM_CLONE:
        return clone();
    case PROGRAM_MPROTECT:
        return violate();
    case PROGRAM_EXECUTE:
        return execute();
    case PROGRAM_FILE:
        return file(argument);
    case PROGRAM_OVERFLOW:
        return (int)deep(~0u);
    case PROGRAM_NULL:
        return *(volatile char *)argument;
    case PROGRAM_HOG:
        return hog(argument);
    case PROGRAM_SPIN:
        for (;;)
            (void)*(volatile char *)argument;
    case PROGRAM_KERNEL:
        return *(volatile char *)argument;
    case PROGRAM_PRIVILEGED:
        return user_privileged();
    case PROGRAM_WX:
        return forbidden();
    default:
        return 255;
    }
}

void start(unsigned program, long argument)
{
    (void)syscall(SYS_EXIT, run(program, argument), 0, 0, 0);
    for (;;)
        continue;
}

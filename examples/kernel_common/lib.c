/* lib.c - what a kernel without a C library needs of one: text on the serial line, and four
 * functions that compilers call */
#include <stdarg.h>
#include "kernel.h"

/* ---- Text ------------------------------------------------------------------------------------ */

static MM_LOCK_T console_lock;

static void put_number(uint64_t n, unsigned base)
{
    char digits[20];
    unsigned i = 0;
    do
        digits[i++] = "0123456789abcdef"[n % base];
    while ((n /= base) != 0);
    while (i != 0)
        arch_putc(digits[--i]);
}

void print(const char *format, ...)
{
    MM_LOCK_STATE_T state;
    const char *s;
    va_list list;
    va_start(list, format);
    MM_LOCK(&console_lock, state);
    for (; *format != 0; format++) {
        if (*format != '%') {
            arch_putc(*format);
            continue;
        }
        format++;
        if (*format == '%')
            arch_putc('%');
        else if (*format == 's')
            for (s = va_arg(list, const char *); *s != 0; s++)
                arch_putc(*s);
        else
            put_number(va_arg(list, uint64_t), *format == 'x' ? 16 : 10);
    }
    MM_UNLOCK(&console_lock, state);
    va_end(list);
}

void panic(const char *why, uint64_t at)
{
    print("PANIC: %s at %x\n", why, at);
    arch_exit(false);
}

/* ---- Memory functions that compilers call ---------------------------------------------------- */

typedef uint64_t __attribute__((may_alias)) word;

void *memset(void *to, int byte, size_t n)
{
    const word fill = (unsigned char)byte * UINT64_C(0x0101010101010101);
    unsigned char *p = to;
    for (; n != 0 && (uintptr_t)p % 8 != 0; n--)
        *p++ = (unsigned char)byte;
    for (; n >= 8; n -= 8, p += 8)
        *(word *)(void *)p = fill;
    while (n-- != 0)
        *p++ = (unsigned char)byte;
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    unsigned char *p = to;
    const unsigned char *q = from;
    if (((uintptr_t)p | (uintptr_t)q) % 8 == 0)
        for (; n >= 8; n -= 8, p += 8, q += 8)
            *(word *)(void *)p = *(const word *)(const void *)q;
    while (n-- != 0)
        *p++ = *q++;
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    unsigned char *p = to;
    const unsigned char *q = from;
    if (p < q)
        return memcpy(to, from, n);
    while (n-- != 0)
        p[n] = q[n];
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *p = a, *q = b;
    for (; n != 0; n--, p++, q++)
        if (*p != *q)
            return *p - *q;
    return 0;
}

/* bits.h - a bitmap with one bit a frame, set while the frame is held */
#ifndef BENCH_BITS_H
#define BENCH_BITS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline bool bits_test(const uint64_t *bits, uint32_t i)
{
    return (bits[i / 64] >> (i % 64) & 1) != 0;
}

/* The bits [i % 64, i % 64 + n) of one word, cut at its end. */
static inline uint64_t bits_mask(uint32_t i, uint32_t n)
{
    uint64_t ones = n >= 64 ? ~0ull : (1ull << n) - 1;
    return ones << (i % 64);
}

/* Sets or clears the n bits from i on, word by word. */
static inline void bits_fill(uint64_t *bits, uint32_t i, uint32_t n, bool value)
{
    while (n > 0) {
        uint32_t here = 64 - i % 64 < n ? 64 - i % 64 : n;
        if (value)
            bits[i / 64] |= bits_mask(i, here);
        else
            bits[i / 64] &= ~bits_mask(i, here);
        i += here;
        n -= here;
    }
}

#endif

/* user_port.h - x86_64: system calls from user mode */
static inline long syscall(long n, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "memory");
    return result;
}

/* Code of a function that returns at once. */
static inline void user_return_code(void *at)
{
    *(volatile unsigned char *)at = 0xc3;
}

/* Reads a port of the interrupt controller. */
static inline int user_privileged(void)
{
    unsigned char value;
    __asm__ volatile("inb $0x21, %0" : "=a"(value));
    return value;
}

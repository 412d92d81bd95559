/* user_port.h - riscv64: system calls from user mode */
static inline long syscall(long n, long a, long b, long c, long d)
{
    register long a0 __asm__("a0") = a;
    register long a1 __asm__("a1") = b;
    register long a2 __asm__("a2") = c;
    register long a3 __asm__("a3") = d;
    register long a7 __asm__("a7") = n;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a7) : "memory");
    return a0;
}

/* Code of a function that returns at once. */
static inline void user_return_code(void *at)
{
    *(volatile unsigned *)at = 0x00008067;
    __asm__ volatile("fence.i" ::: "memory");
}

/* Reads a register of supervisor mode. */
static inline int user_privileged(void)
{
    unsigned long value;
    __asm__ volatile("csrr %0, sstatus" : "=r"(value));
    return (int)value;
}

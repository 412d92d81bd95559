/* asm.h - numbers that assembly and C share */
#define TRAMPOLINE  0x8000
#define STACK_BYTES 32768
#define CPUS_MAX    4

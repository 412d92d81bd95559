/* syscall.h - system calls and programs of the example kernels; negative results are errno
 * values */
#ifndef SYSCALL_H
#define SYSCALL_H

enum {
    SYS_EXIT,     /* code */
    SYS_WRITE,    /* text, bytes */
    SYS_MMAP,     /* address, bytes, rights, flags; MAP_FILE maps the disk file */
    SYS_MUNMAP,   /* address, bytes */
    SYS_MPROTECT, /* address, bytes, rights */
    SYS_BRK,      /* address, or 0 */
    SYS_CLONE,    /* as fork: 0 in the child, 1 in the parent */
    SYS_WAIT      /* runs the child until it ends; its code, or -1 if it was killed */
};

enum { PROT_R = 1, PROT_W = 2, PROT_X = 4 };
enum { MAP_SHARED_ = 1, MAP_PRIVATE_ = 2, MAP_ANON_ = 0x20, MAP_FILE_ = 0 };

enum program {
    PROGRAM_DEMAND,     /* stack and heap come by touching them; argument: pages of heap */
    PROGRAM_CLONE,      /* copy on write, seen from both sides */
    PROGRAM_MPROTECT,   /* writes to a page after mprotect took the right away */
    PROGRAM_EXECUTE,    /* jumps into its heap */
    PROGRAM_FILE,       /* reads and writes pages of a file */
    PROGRAM_OVERFLOW,   /* recursion without end: the guard gap */
    PROGRAM_NULL,       /* reads address 0 */
    PROGRAM_HOG,        /* fills more memory than there is; argument: pages */
    PROGRAM_SPIN,       /* reads its argument's page until that goes away */
    PROGRAM_KERNEL,     /* reads the kernel's memory at the argument */
    PROGRAM_PRIVILEGED, /* uses an instruction that is the kernel's */
    PROGRAM_WX          /* asks for memory that is writable and executable: refused each time */
};

#endif /* SYSCALL_H */

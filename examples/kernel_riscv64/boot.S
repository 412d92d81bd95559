/* boot.S - riscv64: from OpenSBI's entry (S-mode, a0 = hart, a1 = device tree) to kernel code,
 * traps, and user mode. */
#include "asm.h"

/* ---- At physical addresses ------------------------------------------------------------------- */
        .section .boot, "awx"
        .globl boot_start
boot_start:
        la t0, boot_harts
        li t1, 1
        amoadd.w a2, t1, (t0)           /* number of the CPU */
        csrw sie, zero
        csrw sscratch, zero
        la t0, boot_root
        srli t0, t0, 12
        li t1, 8 << 60                  /* Sv39 */
        or t0, t0, t1
        csrw satp, t0
        sfence.vma
        la t0, 2f
        ld t0, 0(t0)
        jr t0
        .align 3
2:      .dword high_start
boot_harts:
        .word 0                         /* that have come here */

/* Sv39: leaves of 1 GiB at physical addresses, at DIRECT (4 GiB), and at BASE + 2 GiB. */
        .globl boot_root, boot_root48
        .align 12
boot_root:
        .dword 0, 0, 0x200000cf
        .fill 253, 8, 0
        .dword 0x000000cf, 0x100000cf, 0x200000cf, 0x300000cf
        .fill 250, 8, 0
        .dword 0x200000cf, 0
boot_root48:                            /* Sv48: the last entry of the top is that table */
        .fill 511, 8, 0
        .dword (0x80201000 >> 12 << 10) + 1

/* ---- High ------------------------------------------------------------------------------------ */
        .text
        .align 2
high_start:
        la sp, stacks
        addi t0, a2, 1
        li t1, STACK_BYTES
        mul t0, t0, t1
        add sp, sp, t0
        la t0, trap_entry
        csrw stvec, t0
        call arch_main
1:      wfi
        j 1b

        .macro each op
        \op x1, 1 * 8(sp)
        \op x3, 3 * 8(sp)
        \op x5, 5 * 8(sp)
        \op x6, 6 * 8(sp)
        \op x7, 7 * 8(sp)
        \op x8, 8 * 8(sp)
        \op x9, 9 * 8(sp)
        \op x10, 10 * 8(sp)
        \op x11, 11 * 8(sp)
        \op x12, 12 * 8(sp)
        \op x13, 13 * 8(sp)
        \op x14, 14 * 8(sp)
        \op x15, 15 * 8(sp)
        \op x16, 16 * 8(sp)
        \op x17, 17 * 8(sp)
        \op x18, 18 * 8(sp)
        \op x19, 19 * 8(sp)
        \op x20, 20 * 8(sp)
        \op x21, 21 * 8(sp)
        \op x22, 22 * 8(sp)
        \op x23, 23 * 8(sp)
        \op x24, 24 * 8(sp)
        \op x25, 25 * 8(sp)
        \op x26, 26 * 8(sp)
        \op x27, 27 * 8(sp)
        \op x28, 28 * 8(sp)
        \op x29, 29 * 8(sp)
        \op x30, 30 * 8(sp)
        \op x31, 31 * 8(sp)
        .endm

/* sscratch is 0 in the kernel; in user mode it is the kernel's stack, on which user_enter left
 * tp. */
        .align 2
trap_entry:
        csrrw sp, sscratch, sp
        bnez sp, 1f
        csrr sp, sscratch
1:      addi sp, sp, -FRAME_BYTES
        each sd
        sd tp, 4 * 8(sp)
        csrr t0, sscratch
        sd t0, 2 * 8(sp)
        csrw sscratch, zero
        csrr t0, sepc
        sd t0, 0(sp)
        csrr t0, sstatus
        sd t0, 32 * 8(sp)
        andi t0, t0, 0x100              /* SPP */
        bnez t0, 1f
        ld tp, FRAME_BYTES(sp)
1:      mv a0, sp
        call arch_trap
trap_return:
        ld t0, 32 * 8(sp)
        csrw sstatus, t0
        ld t1, 0(sp)
        csrw sepc, t1
        andi t0, t0, 0x100
        bnez t0, 1f
        addi t0, sp, FRAME_BYTES
        csrw sscratch, t0
        ld tp, 4 * 8(sp)
1:      each ld
        ld sp, 2 * 8(sp)
        sret

/* void user_enter(struct frame *frame, uint64_t *stack) */
        .globl user_enter, user_leave
user_enter:
        csrrci t0, sstatus, 2
        addi sp, sp, -128
        sd tp, 0(sp)
        sd ra, 8(sp)
        sd s0, 16(sp)
        sd s1, 24(sp)
        sd s2, 32(sp)
        sd s3, 40(sp)
        sd s4, 48(sp)
        sd s5, 56(sp)
        sd s6, 64(sp)
        sd s7, 72(sp)
        sd s8, 80(sp)
        sd s9, 88(sp)
        sd s10, 96(sp)
        sd s11, 104(sp)
        andi t0, t0, 2
        sd t0, 112(sp)
        ld t1, 0(a1)                    /* the way back of the one before */
        sd t1, 120(sp)
        sd sp, 0(a1)
        addi t0, sp, -FRAME_BYTES
        li t1, 33
1:      ld t2, 0(a0)
        sd t2, 0(t0)
        addi a0, a0, 8
        addi t0, t0, 8
        addi t1, t1, -1
        bnez t1, 1b
        addi sp, sp, -FRAME_BYTES
        j trap_return
user_leave:                             /* void user_leave(uint64_t *stack) */
        ld sp, 0(a0)
        ld t1, 120(sp)
        sd t1, 0(a0)
        ld ra, 8(sp)
        ld s0, 16(sp)
        ld s1, 24(sp)
        ld s2, 32(sp)
        ld s3, 40(sp)
        ld s4, 48(sp)
        ld s5, 56(sp)
        ld s6, 64(sp)
        ld s7, 72(sp)
        ld s8, 80(sp)
        ld s9, 88(sp)
        ld s10, 96(sp)
        ld s11, 104(sp)
        ld t0, 112(sp)
        addi sp, sp, 128
        csrs sstatus, t0
        ret

/* int arch_try_write(volatile void *at) */
        .globl arch_try_write
arch_try_write:
        mv t0, a0
        li a0, 0
        lb t1, 0(t0)
        sb t1, 0(t0)
        ret

        .section .rodata
        .globl boot_addresses
        .align 3
boot_addresses:
        .dword boot_start, boot_root48
        .globl user_image, user_image_end
        .align 12
user_image:
        .incbin USER_IMAGE
user_image_end:

        .bss
        .align 4
stacks: .skip STACK_BYTES * 4

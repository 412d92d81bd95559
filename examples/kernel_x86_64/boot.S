/* boot.S - x86_64: from the PVH entry (32-bit protected mode, ebx = start_info) to kernel code, the
 * way of the other CPUs there, traps, and user mode. */
#include "asm.h"

        .section .note.pvh, "a", @note /* Xen's ELF note 18: where to enter */
        .align 4
        .long 4, 8, 18
        .asciz "Xen"
        .quad boot_start

/* ---- 32 bits: tables for the first 4 GiB at 0, at DIRECT and at BASE ------------------------- */
        .section .boot, "awx"
        .code32
        .globl boot_start
boot_start:
        cli
        cld
        mov $boot_stack_top, %esp
        mov %ebx, boot_info
        mov $boot_pd, %edi              /* 2048 leaves of 2 MiB */
        mov $0x83, %eax
        xor %edx, %edx
1:      mov %eax, (%edi)
        mov %edx, 4(%edi)
        add $0x200000, %eax
        add $8, %edi
        cmp $boot_pd + 4 * 4096, %edi
        jne 1b
        mov $boot_pd + 3, %eax
        mov %eax, boot_pdpt
        mov %eax, boot_pdpt_high + 510 * 8
        add $4096, %eax
        mov %eax, boot_pdpt + 8
        mov %eax, boot_pdpt_high + 511 * 8
        add $4096, %eax
        mov %eax, boot_pdpt + 16
        add $4096, %eax
        mov %eax, boot_pdpt + 24
        movl $boot_pdpt + 3, boot_pml4
        movl $boot_pdpt + 3, boot_pml4 + 273 * 8  /* DIRECT */
        movl $boot_pdpt_high + 3, boot_pml4 + 511 * 8
        movl $boot_pml4 + 3, boot_pml5
        movl $boot_pml4 + 3, boot_pml5 + 511 * 8
        movl $boot_pml4, boot_root
        xor %eax, %eax
        cpuid
        cmp $7, %eax
        jb boot_long
        mov $7, %eax
        xor %ecx, %ecx
        cpuid
        test $1 << 16, %ecx             /* LA57 */
        jz boot_long
        movl $boot_pml5, boot_root
        movl $1, boot_la57

/* Every CPU: on to 64 bits. */
boot_long:
        mov %cr4, %eax
        or $0x20, %eax                  /* PAE */
        cmpl $0, boot_la57
        je 1f
        or $0x1000, %eax
1:      mov %eax, %cr4
        mov boot_root, %eax
        mov %eax, %cr3
        mov $0xc0000080, %ecx           /* EFER: LME, NXE */
        rdmsr
        or $0x900, %eax
        wrmsr
        mov $0x80010011, %eax           /* PG, WP, ET, PE */
        mov %eax, %cr0
        lgdt boot_gdt_pointer
        ljmp $0x08, $boot_64
        .code64
boot_64:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $high_start, %rax
        jmp *%rax

/* ---- 16 bits: where the other CPUs begin, copied to TRAMPOLINE ------------------------------- */
        .code16
        .globl trampoline, trampoline_end
trampoline:
        cli
        xor %ax, %ax
        mov %ax, %ds
        lgdtl TRAMPOLINE + (trampoline_gdt_pointer - trampoline)
        mov $0x11, %eax
        mov %eax, %cr0
        ljmpl $0x18, $boot_ap
        .align 8
trampoline_gdt_pointer:
        .word 4 * 8 - 1
        .long boot_gdt
trampoline_end:
        .code32
boot_ap:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %ss
        jmp boot_long

        .align 8
boot_gdt:
        .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff
boot_gdt_pointer:
        .word 4 * 8 - 1
        .quad boot_gdt
        .globl boot_info, boot_la57
boot_info:
        .quad 0
boot_root:
        .quad 0
boot_la57:
        .quad 0
        .align 4096
boot_pml5:
        .fill 4096
boot_pml4:
        .fill 4096
boot_pdpt:
        .fill 4096
boot_pdpt_high:
        .fill 4096
boot_pd:
        .fill 4 * 4096
        .fill 512
boot_stack_top:

/* ---- 64 bits, high --------------------------------------------------------------------------- */
        .text
        .code64
high_start:                             /* the next stack is this CPU's */
        mov $1, %eax
        lock xadd %eax, cpus_entered(%rip)
        cmp $CPUS_MAX, %eax
        jae 1f
        mov %eax, %edi
        imul $STACK_BYTES, %eax, %eax
        lea stacks + STACK_BYTES(%rip), %rsp
        add %rax, %rsp
        xor %ebp, %ebp
        call arch_main
1:      cli                             /* a CPU more than there is room for */
        hlt
        jmp 1b

/* Traps: vector and error code, then all registers, in the order of struct frame. */
        .macro stub n
        .align 16
        .if !(\n == 8 || (\n >= 10 && \n <= 14) || \n == 17 || \n == 21)
        push $0
        .endif
        push $\n
        jmp trap_common
        .endm
        .align 16
        .globl trap_stubs
trap_stubs:
        .set i, 0
        .rept 48
        stub i
        .set i, i + 1
        .endr
        .globl trap_syscall
trap_syscall:
        push $0
        push $0x80
trap_common:
        push %rax
        push %rcx
        push %rdx
        push %rbx
        push %rbp
        push %rsi
        push %rdi
        push %r8
        push %r9
        push %r10
        push %r11
        push %r12
        push %r13
        push %r14
        push %r15
        cld
        pushfq                          /* AC off: with SMAP, user memory is out of reach */
        andl $~0x40000, (%rsp)
        popfq
        mov %rsp, %rdi
        mov %rsp, %rbp
        and $-16, %rsp
        call arch_trap
        mov %rbp, %rsp
trap_return:
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rdi
        pop %rsi
        pop %rbp
        pop %rbx
        pop %rdx
        pop %rcx
        pop %rax
        add $16, %rsp
        iretq

/* void user_enter(struct frame *frame, uint64_t *rsp0): rsp0 is the TSS's stack for traps from user
 * mode. It is also where user_leave finds the way back; the one before is kept on this stack. */
        .globl user_enter, user_leave
user_enter:
        pushfq
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        cli
        push (%rsi)
        mov %rsp, (%rsi)
        sub $22 * 8, %rsp               /* the frame, copied: struct process may go meanwhile */
        mov %rdi, %rsi
        mov %rsp, %rdi
        mov $22, %ecx
        cld
        rep movsq
        jmp trap_return
user_leave:                             /* void user_leave(uint64_t *rsp0) */
        mov (%rdi), %rsp
        pop (%rdi)
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        popfq
        ret

/* int arch_try_write(volatile void *at) */
        .globl arch_try_write
arch_try_write:
        xor %eax, %eax
        mov (%rdi), %cl
        mov %cl, (%rdi)
        ret

        .section .rodata
        .globl user_image, user_image_end
        .align 4096
user_image:
        .incbin USER_IMAGE
user_image_end:

        .bss
        .globl cpus_entered
        .align 16
stacks: .skip STACK_BYTES * CPUS_MAX
cpus_entered:
        .skip 8
        .section .note.GNU-stack, "", @progbits

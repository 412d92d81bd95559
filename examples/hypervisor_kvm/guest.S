/* guest.S - the guest: takes commands from a mailbox and reports by an I/O port, in 64-bit mode
 * with paging on from its first instruction. Linked into the machine as data, and copied to a guest
 * frame. */
#include "guest.h"

    .section .rodata
    .globl guest_start, guest_end, guest_gdt, guest_idt
    .balign 16
    .code64
guest_start:
    mov $GUEST_MAILBOX, %ebx
    mov $GUEST_HELLO, %eax
report:
    out %eax, $GUEST_PORT_REPORT
    cmpl $0, MAIL_FLUSH(%rbx)   /* the machine changed tables: forget translations */
    je 1f
    mov %cr3, %rax
    mov %rax, %cr3
1:  mov MAIL_VA(%rbx), %rdi
    mov MAIL_COUNT(%rbx), %rcx
    mov MAIL_VALUE(%rbx), %rdx
    mov MAIL_COMMAND(%rbx), %eax
    cmp $GUEST_FILL, %eax
    je fill
    cmp $GUEST_SUM, %eax
    je sum
    cmp $GUEST_STORE, %eax
    je store
    cmp $GUEST_LOAD, %eax
    je load
    cmp $GUEST_CALL, %eax
    je call
    hlt
    jmp report

fill:
    mov %rdx, (%rdi)
    add $4096, %rdi
    inc %rdx
    dec %rcx
    jnz fill
    mov MAIL_COUNT(%rbx), %eax
    jmp report

sum:
    xor %eax, %eax
1:  add (%rdi), %eax
    add $4096, %rdi
    dec %rcx
    jnz 1b
    jmp report

store:
    mov %edx, (%rdi)
    mov $1, %eax
    jmp report

load:
    mov (%rdi), %eax
    jmp report

call:
    call *%rdi
    mov $1, %eax
    jmp report

/* A page fault: the machine either maps the page, and the access is repeated, or denies it. */
page_fault:
    push %rax
    mov 8(%rsp), %eax
    out %eax, $GUEST_PORT_FAULT
    cmpl $0, MAIL_DENIED(%rbx)
    jne 1f
    pop %rax
    add $8, %rsp
    iretq
1:  mov $GUEST_STACK + 4096, %esp
    mov $GUEST_GAVE_UP, %eax
    jmp report

    .balign 16
guest_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    /* 8: code, 64 bits */
    .quad 0x00cf93000000ffff    /* 16: data */
guest_idt:                      /* up to vector 14, page fault; any other exception ends the guest */
    .fill 14 * 2, 8, 0
    .word (page_fault - guest_start + GUEST_CODE) & 0xffff, 8, 0x8e00
    .word (page_fault - guest_start + GUEST_CODE) >> 16, 0, 0, 0, 0
guest_end:

    .section .note.GNU-stack, "", @progbits

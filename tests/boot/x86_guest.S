/* x86_guest.S - a bare guest of qemu-system-x86_64 (PVH): turns paging on with the tables of the
 * image at 2 MiB, four levels or five. For each record it sets CR0, CR4 and PKRU, makes one load,
 * store or fetch in ring 0 or ring 3, and writes what happened to the serial port, a line for each:
 * vector, error code, CR2, loaded value, the leaf's entry afterwards, in hexadecimal.
 *
 * The image: number of records, CR3, CR4 for the start; from 64 on the records. A record has eight
 * words: va, op (0 load, 1 store, 2 fetch, 4 more for ring 3), CR0, CR4, PKRU, value to store,
 * address of the leaf's entry or 0, nothing. All below 4 MiB is mapped where it is; the page of the
 * stubs, at 0x101000, also at USER for ring 3. */
        .set IMAGE, 0x200000
        .set USER, 0x7f0000000000

        .section .note.pvh, "a", @note  /* Xen's ELF note 18: where to enter */
        .align 4
        .long 4, 8, 18
        .asciz "Xen"
        .quad start

        .text
        .code32
        .globl start
start:  cli
        mov IMAGE + 16, %eax
        mov %eax, %cr4
        mov IMAGE + 8, %eax
        mov %eax, %cr3
        mov $0xc0000080, %ecx           /* EFER: LME, NXE */
        rdmsr
        or $0x900, %eax
        wrmsr
        mov $0x80010011, %eax           /* PG, WP, ET, PE */
        mov %eax, %cr0
        lgdt gdt_pointer
        ljmp $0x08, $long_mode
        .code64
long_mode:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov $stack_end, %esp
        mov $tss, %eax                  /* its descriptor: base 0 to 23 stands at 2, 24 to 31 at 7 */
        mov %ax, gdt_tss + 2
        shr $16, %eax
        mov %al, gdt_tss + 4
        mov $0x28, %eax
        ltr %ax
        mov $0, %ecx
1:      mov $other, %eax
        mov $0x8e, %edx
        call gate
        inc %ecx
        cmp $256, %ecx
        jne 1b
        mov $13, %ecx
        mov $general, %eax
        call gate
        mov $14, %ecx
        mov $fault, %eax
        call gate
        mov $0x80, %ecx
        mov $done, %eax
        mov $0xee, %edx
        call gate
        lidt idt_pointer
        mov $IMAGE, %r15
        mov (%r15), %r14
        add $64, %r15

next:   test %r14, %r14
        jz finish
        mov 16(%r15), %rax
        mov %rax, %cr0
        mov 24(%r15), %rax
        mov %rax, %cr4
        xor %ecx, %ecx
        xor %edx, %edx
        mov 32(%r15), %eax
        wrpkru
        mov %cr3, %rax
        mov %rax, %cr3
        mov 40(%r15), %rbx
        mov 8(%r15), %rcx
        test $4, %rcx
        jnz ring3
        shl $4, %rcx
        add $stubs, %rcx
        mov (%r15), %rax
        jmp *%rcx
ring3:  and $3, %rcx
        shl $4, %rcx
        mov $USER, %rax
        add %rax, %rcx
        mov (%r15), %rax
        pushq $0x1b
        pushq $0
        pushq $0x02
        pushq $0x23
        pushq %rcx
        iretq

/* Gate number ecx to the code at eax, with type and level in dl. */
gate:   mov %ecx, %edi
        shl $4, %edi
        add $idt, %edi
        mov %ax, (%rdi)
        movw $8, 2(%rdi)
        movb $0, 4(%rdi)
        mov %dl, 5(%rdi)
        mov %eax, %esi
        shr $16, %esi
        mov %si, 6(%rdi)
        movq $0, 8(%rdi)
        ret

fault:  mov $14, %r8d
        pop %r9
        jmp report
general:
        mov $13, %r8d
        pop %r9
        jmp report
other:  mov $0xff, %r8d
        xor %r9d, %r9d
        jmp report
done:   mov $0x80, %r8d
        xor %r9d, %r9d
report: mov $stack_end, %esp
        mov %r8, %rax
        call print
        mov %r9, %rax
        call print
        mov %cr2, %rax
        call print
        mov %rbx, %rax
        call print
        mov 48(%r15), %rax
        test %rax, %rax
        jz 1f
        mov (%rax), %rax
1:      call print
        mov $'\n', %al
        call put
        add $64, %r15
        dec %r14
        jmp next

finish: mov $0xf4, %edx                 /* isa-debug-exit */
        mov $16, %eax
        out %eax, %dx
        hlt
        jmp finish

print:  mov %rax, %rdi
        mov $16, %ecx
2:      rol $4, %rdi
        mov %edi, %eax
        and $15, %al
        add $'0', %al
        cmp $'9', %al
        jbe 3f
        add $'a' - '0' - 10, %al
3:      call put
        loop 2b
        mov $' ', %al
put:    mov %al, %sil
        mov $0x3fd, %edx                /* 16550: line status */
4:      in %dx, %al
        test $0x20, %al
        jz 4b
        mov %sil, %al
        mov $0x3f8, %edx
        out %al, %dx
        ret

        .balign 4096
stubs:  mov (%rax), %rbx
        int $0x80
        .balign 16
        mov %rbx, (%rax)
        int $0x80
        .balign 16
        jmp *%rax
        .balign 4096

        .data
        .balign 16
gdt:    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
gdt_tss:
        .quad 0x0000890000000067, 0
gdt_pointer:
        .word . - gdt - 1
        .quad gdt
idt_pointer:
        .word 4095
        .quad idt
        .balign 16
tss:    .long 0
        .quad stack_end
        .fill 92, 1, 0
        .bss
        .balign 4096
idt:    .space 4096
        .space 4096
stack_end:

# riscv_guest.S - a bare guest of qemu-system-riscv64 -machine virt: for each record it sets satp or
# hgatp, makes one load, store or fetch as supervisor or user, and writes what happened to the serial
# port, a line for each: cause, trap value, loaded value, in hexadecimal.
#
# A record has eight words: va, op (0 load, 1 store, 2 fetch), mstatus, satp, hgatp, value to store,
# hstatus, nothing. Guests' loads and stores are hlv and hsv: QEMU 7.2 takes the faults of MPRV with MPV for
# those of the first stage.
    .option norvc
    .globl _start
    .section .text
_start:
    la      sp, stack_end
    li      t0, -1
    csrw    pmpaddr0, t0
    li      t0, 0x1f
    csrw    pmpcfg0, t0
    li      s0, 0x80010000          # number of records, then the records
    ld      s1, 0(s0)
    ld      s3, 8(s0)               # has the H extension
    addi    s0, s0, 64
next:
    beqz    s1, finish
    ld      a0, 0(s0)
    ld      a1, 8(s0)
    ld      a2, 16(s0)
    ld      t0, 24(s0)
    csrw    satp, t0
    beqz    s3, 1f
    ld      t0, 32(s0)
    csrw    0x680, t0               # hgatp
    csrw    0x280, zero             # vsatp
    .word   0x62000073              # hfence.gvma
    ld      t0, 48(s0)
    csrw    0x600, t0               # hstatus: SPVP, the mode of hlv and hsv
1:  sfence.vma
    ld      a3, 40(s0)
    la      t0, trapped
    csrw    mtvec, t0
    li      s4, 0                   # cause: none
    li      s5, 0
    li      s6, 0
    li      t0, 1
    beq     a1, t0, store
    li      t0, 2
    beq     a1, t0, fetch
    beqz    s3, 5f
    .insn   r 0x73, 4, 0x36, s6, a0, x0     # hlv.d s6, (a0)
    j       done
5:  csrw    mstatus, a2
    ld      s6, 0(a0)
    j       done
store:
    beqz    s3, 6f
    .insn   r 0x73, 4, 0x37, x0, a0, a3     # hsv.d a3, (a0)
    j       done
6:  csrw    mstatus, a2
    sd      a3, 0(a0)
    j       done
fetch:
    csrw    mepc, a0
    csrw    mstatus, a2
    mret
    .balign 4
trapped:
    csrr    s4, mcause
    csrr    s5, mtval
done:
    li      t0, 0x1800
    csrw    mstatus, t0             # machine mode, no MPRV
    mv      a0, s4
    call    print
    mv      a0, s5
    call    print
    mv      a0, s6
    call    print
    li      a0, '\n'
    call    put
    addi    s0, s0, 64
    addi    s1, s1, -1
    j       next
finish:
    li      t0, 0x100000            # the test device: the end
    li      t1, 0x5555
    sw      t1, 0(t0)
    j       finish
print:
    mv      s8, ra
    mv      s7, a0
    li      s9, 60
2:  srl     a0, s7, s9
    andi    a0, a0, 15
    addi    a0, a0, '0'
    li      t0, '9'
    ble     a0, t0, 3f
    addi    a0, a0, 'a' - '0' - 10
3:  call    put
    addi    s9, s9, -4
    bgez    s9, 2b
    li      a0, ' '
    call    put
    mv      ra, s8
    ret
put:
    li      t0, 0x10000000          # 16550
4:  lbu     t1, 5(t0)
    andi    t1, t1, 0x20
    beqz    t1, 4b
    sb      a0, 0(t0)
    ret
    .balign 16
    .space 256
stack_end:

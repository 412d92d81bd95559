/* guest.h - what the machine (vmm.c) and its guest (guest.S) agree on */
#ifndef GUEST_H
#define GUEST_H

/* Guest-virtual addresses. */
#define GUEST_CODE       0x400000       /* guest.S, R-X */
#define GUEST_STACK      0x500000       /* one page, RW-: the stack starts at its end */
#define GUEST_MAILBOX    0x600000       /* one page that the machine writes and the guest reads */
#define GUEST_DEVICE     0x700000       /* one page of a device, uncached */
#define GUEST_HOLE       0x800000       /* mapped to a guest-physical address where nothing is */
#define GUEST_HEAP       0x40000000     /* paged in on demand */
#define GUEST_HEAP_PAGES 4096           /* most pages of it */
#define GUEST_DIRECT     0x7f0000000000 /* all memory, RW-, in 2 MiB leaves */

/* Ports. */
#define GUEST_PORT_REPORT 0xf4 /* command done; result in eax */
#define GUEST_PORT_FAULT  0xf5 /* page fault: error code in eax, address in cr2 */

/* Commands of the mailbox. */
#define GUEST_HALT  0
#define GUEST_FILL  1 /* write value, value + 1 ... to `count` pages from va: one each, 8 bytes */
#define GUEST_SUM   2 /* add the first 4 bytes of `count` pages from va */
#define GUEST_STORE 3 /* write 4 bytes of `value` to va */
#define GUEST_LOAD  4 /* read 4 bytes at va */
#define GUEST_CALL  5 /* call va */

#define GUEST_HELLO 0x6d6d /* the first report */
#define GUEST_GAVE_UP \
    0xdeadbeef /* what a command reports whose fault the machine did not resolve */

/* Offsets into the mailbox, for the assembler. */
#define MAIL_COMMAND 0
#define MAIL_VA      8
#define MAIL_COUNT   16
#define MAIL_VALUE   24
#define MAIL_FLUSH   32
#define MAIL_DENIED  40

#endif

/* asm.h - numbers that assembly and C share */
#define STACK_BYTES 32768
#define FRAME_BYTES 272 /* struct frame, a multiple of 16 */

/* The random model with a processor that keeps all translations that it may keep, until a flush
 * tells it to forget them: what each call tells, and when frames and tables go, for every
 * format. */
#define TLB
#ifndef LESS
#define LESS 2u /* all pages are looked at, several times a call */
#endif
#include "pagetable_random.c"

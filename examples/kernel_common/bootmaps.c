/* bootmaps.c - the readers of boot maps, behind this kernel's hooks: every file sees the same
 * ones */
#include "../kernel_mm/kernel_mm.h"
#include "../bootmaps/bootmaps.c"

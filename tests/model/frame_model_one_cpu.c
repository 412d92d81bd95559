/* The random model on one CPU: watermarks are exact there, and MM_DEBUG 3 checks after every slow
 * call. */
#define MM_CPU_MAX 1
#include "frame_model.c"

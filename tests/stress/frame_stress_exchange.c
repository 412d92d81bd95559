/* The threads of frame_stress.c without MM_FENCE_CPUS: the hot paths' fence is an exchange. */
#define FRAME_STRESS_EXCHANGE
#include "frame_stress.c"

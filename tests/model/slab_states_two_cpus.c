/* As slab_states.c, with the arrays of two CPUs, of two objects each: they run over after every
 * other free. */
#define STATES_SHIFT 17
#define STATES_SIZE  32768
#define STATES_SLOTS 2
#define STATES_SLABS 2
#define STATES_CPUS  2
#include "slab_states.c"

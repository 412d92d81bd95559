/* Run with examples/malloc preloaded: forks at every instruction of its calls, by the thread itself
 * (a signal's handler) and by another one, and what the child may use of other threads' memory. */
#define _GNU_SOURCE
#include "malloc_check.h"

#include <sched.h>
#include <semaphore.h>
#include <stdbool.h>
#include <sys/syscall.h>

/* A child has a while for what it does; one that hangs is a failure. */
static void fork_and(void (*child)(void))
{
    int status = 1;
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        if (child != NULL)
            child();
        _exit(0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

/* ---- What another thread has freed ----------------------------------------------------------- */

/* Another thread's arrays may be half changed when a fork comes. So the child uses none of what is
 * in them, whole or not: classes of their own and classes that share slabs. */
#define KINDS 4
#define EACH  4 /* fewer than any array has places */
static const size_t kinds[KINDS] = {48, 112, 448, 768};
static void *freed[KINDS][EACH];
static pthread_barrier_t has_freed, may_end;

static void *frees(void *arg)
{
    for (size_t k = 0; k < KINDS; k++)
        for (size_t i = 0; i < EACH; i++)
            free(freed[k][i]);
    pthread_barrier_wait(&has_freed);
    pthread_barrier_wait(&may_end);
    return arg;
}

static void *takes(void *arg) /* in the slot of the thread that freed */
{
    for (size_t k = 0; k < KINDS; k++) {
        for (size_t n = 0; n < 500; n++) {
            const void *p = malloc(kinds[k]);
            CHECK(p != NULL);
            for (size_t i = 0; i < EACH; i++)
                CHECK(p != freed[k][i]);
        }
    }
    return arg;
}

static void child_takes(void)
{
    pthread_t id;
    CHECK(pthread_create(&id, NULL, takes, NULL) == 0);
    pthread_join(id, NULL);
    (void)takes(NULL);
}

static void given_up(void)
{
    static void *much[40000];
    pthread_t id;

    for (size_t i = 0; i < 40000; i++) /* enough for classes to share slabs */
        CHECK((much[i] = malloc(1000)) != NULL);
    for (size_t k = 0; k < KINDS; k++) /* the last ones of more than a slab has */
        for (size_t i = 0; i < 1500; i++)
            CHECK((freed[k][i % EACH] = malloc(kinds[k])) != NULL);
    pthread_barrier_init(&has_freed, NULL, 2);
    pthread_barrier_init(&may_end, NULL, 2);
    CHECK(pthread_create(&id, NULL, frees, NULL) == 0);
    pthread_barrier_wait(&has_freed);
    fork_and(child_takes);
    pthread_barrier_wait(&may_end);
    pthread_join(id, NULL);
    for (size_t i = 0; i < 40000; i++)
        free(much[i]);
    malloc_trim(0);
}

#ifdef __x86_64__

/* ---- At every instruction -------------------------------------------------------------------- */

/* While the processor's trap flag is set, each instruction ends with a SIGTRAP; its handler runs
 * without the flag, which comes back with its return. */
static inline void traps(bool on)
{
    if (on)
        __asm__ __volatile__("lea -128(%%rsp), %%rsp\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\t"
                             "lea 128(%%rsp), %%rsp" ::
                                 : "memory", "cc");
    else
        __asm__ __volatile__(
            "lea -128(%%rsp), %%rsp\n\tpushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq\n\t"
            "lea 128(%%rsp), %%rsp" ::
                : "memory", "cc");
}

static void on_trap(void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
}

/* Calls that lock: pages, and objects of which there are none at hand. */
static void stepped_calls(bool step)
{
    static void *p[3];
    traps(step);
    p[0] = malloc(20000);
    p[1] = malloc(200000);
    p[2] = malloc(3000);
    traps(false);
    for (size_t i = 0; i < 3; i++)
        CHECK(p[i] != NULL);
    traps(step);
    free(p[0]);
    p[1] = realloc(p[1], 100000);
    free(p[1]);
    traps(false);
    free(p[2]);
}

static volatile unsigned steps;

static void fork_here(int signal)
{
    (void)signal;
    steps++;
    fork_and(NULL);
}

static void own_steps(void)
{
    on_trap(fork_here);
    steps = 0;
    stepped_calls(true);
    CHECK(steps > 300);
}

/* Another thread steps. After each instruction it waits until this one has forked, or has found
 * that it must wait: the library yields between two looks, and a yield lasts until the next
 * instruction. A fork at each of them would turn the thread away from the library's gate for ever:
 * after every second one that had to wait, it goes some way without. */
#define PASS 16 /* instructions that lead through the gate, as far as the test needs them */
static sem_t asks, goes_on, has_looked;
static unsigned answered, pass;
static bool asked, waited, stepped;
static __thread bool forks;

int sched_yield(void)
{
    if (!forks)
        return (int)syscall(SYS_sched_yield);
    waited = true;
    sem_post(&has_looked);
    return sem_wait(&goes_on);
}

static void wait_for_fork(int signal)
{
    (void)signal;
    if (asked) {
        sem_post(&goes_on);
    } else if (pass != 0) {
        pass--;
        return;
    } else {
        asked = true;
        sem_post(&asks);
    }
    sem_wait(&has_looked);
}

static void *steps_on(void *arg)
{
    stepped_calls(true);
    stepped = true;
    sem_post(&asks);
    return arg;
}

/* Takes and gives as much as it likes, also in the other thread's slot, and spoils nothing that was
 * there. */
static unsigned char *kept[64];

static void *uses(void *arg)
{
    for (unsigned round = 0; round < 2; round++) {
        void *p[64];
        for (size_t i = 0; i < 64; i++) {
            const size_t bytes = i < 60 ? i * 60 + 1 : i * 1500;
            CHECK((p[i] = malloc(bytes)) != NULL);
            memset(p[i], 0xee, bytes);
        }
        for (size_t i = 0; i < 64; i++)
            free(p[i]);
    }
    return arg;
}

static void child_uses(void)
{
    pthread_t id;

    forks = false;
    (void)uses(NULL);
    CHECK(pthread_create(&id, NULL, uses, NULL) == 0);
    pthread_join(id, NULL);
    for (size_t i = 0; i < 64; i++)
        for (size_t n = 0; n < i * 60 + 1; n++)
            CHECK(kept[i][n] == (unsigned char)i);
}

static void others_steps(void)
{
    unsigned waits = 0;
    pthread_t id;

    for (size_t i = 0; i < 64; i++) {
        CHECK((kept[i] = malloc(i * 60 + 1)) != NULL);
        memset(kept[i], (int)i, i * 60 + 1);
    }
    sem_init(&asks, 0, 0);
    sem_init(&goes_on, 0, 0);
    sem_init(&has_looked, 0, 0);
    on_trap(wait_for_fork);
    CHECK(pthread_create(&id, NULL, steps_on, NULL) == 0);
    for (sem_wait(&asks); !stepped; sem_wait(&asks)) {
        forks = true;
        fork_and(child_uses);
        forks = false;
        if (waited && ++waits % 2 == 0)
            pass = PASS;
        waited = asked = false;
        answered++;
        sem_post(&has_looked);
    }
    pthread_join(id, NULL);
    CHECK(answered > 700);
    for (size_t i = 0; i < 64; i++)
        free(kept[i]);
}

#else
static void stepped_calls(bool step)
{
    (void)step;
}
static void own_steps(void)
{
}
static void others_steps(void)
{
}
#endif

int main(void)
{
    alarm(60); /* a fork that waits for its own thread would do so for ever */
    stepped_calls(false);
    others_steps(); /* first: the other thread's slot is a new one */
    own_steps();
    given_up();
    return 0;
}

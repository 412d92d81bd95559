# Verbs: bench, count. Everything is built under build/bench/.
#   make bench FILTER=REGEX   only the benchmarks ROW/ALLOCATOR that match
#   make bench REPS=N         repetitions of each, 3 unless said otherwise
#   make bench WITHOUT=buddy  leaves an allocator out (frame, buddy, pagetable); after make clean

FILTER ?= $(BENCH_FILTER)
WITHOUT ?=
REPS ?= $(or $(BENCH_REPS),3)

bench_dir := build/bench
bench_cc = $(or $(GCC),gcc)
bench_flags := -std=gnu11 -D_GNU_SOURCE -O2 -g -falign-functions=64 -falign-loops=64 -Wall -Wextra -I. \
    $(if $(findstring frame,$(WITHOUT)),-DBENCH_NO_FRAME) \
    $(if $(findstring buddy,$(WITHOUT)),-DBENCH_NO_BUDDY) \
    $(if $(findstring pagetable,$(WITHOUT)),-DBENCH_NO_PAGETABLE)
bench_sources := $(filter-out bench/count%.c $(foreach w,$(WITHOUT),$(wildcard bench/adapt_$(w)*.c)), \
    $(wildcard bench/*.c bench/baseline/*.c))
bench_common := $(filter-out bench/main.c bench/work_%.c bench/trace.c bench/adapt_pagetable%.c bench/adapt_vma.c \
    bench/baseline/pagetable_%.c bench/baseline/areas_%.c,$(bench_sources))
bench_objects = $(patsubst bench/%.c,$(bench_dir)/%.o,$(1))

# Maps of areas in C++, where their headers are installed. NAME: libraries
rivals := $(if $(wildcard /usr/include/absl/container/btree_map.h),absl) \
    $(if $(wildcard /usr/include/llvm-14/llvm/ADT/IntervalMap.h),llvm)
rival_libs_absl := -labsl_throw_delegate -labsl_raw_logging_internal
rival_libs_llvm := -L/usr/lib/llvm-14/lib -lLLVM-14
bench_rivals := $(rivals:%=$(bench_dir)/rivals/areas_%.o)
bench_flags += $(if $(filter absl,$(rivals)),-DBENCH_ABSL) $(if $(filter llvm,$(rivals)),-DBENCH_LLVM)

.PHONY: bench bench-build count count-build count-record

bench: | deps-bench deps-rivals ## measure all allocators: a table, build/bench/report.html; FILTER=REGEX REPS=N
	@$(MAKE) --no-print-directory bench-build
	@rm -f $(bench_dir)/*.json
	@BENCH_FILTER='$(FILTER)' BENCH_REPS='$(REPS)' $(bench_dir)/bench \
	    --benchmark_enable_random_interleaving=true \
	    --benchmark_out=$(bench_dir)/bench.json --benchmark_out_format=json || [ -n '$(FILTER)' ]
	@$(MAKE) --no-print-directory bench-objects
	@ls $(bench_dir)/*.json >/dev/null 2>&1 || { echo "bench: nothing matches FILTER" >&2; exit 1; }
	@python3 bench/report.py $(bench_dir)/*.json $(bench_dir)/report.html

# the programs of small objects take turns, so that a disturbance hits them alike
bench-objects: bench-objects-build
	@for rep in $$(seq $(REPS)); do for program in $(objects); do \
	    echo "objects: round $$rep of $(REPS): $$program" >&2; \
	    BENCH_FILTER='$(FILTER)' $(bench_dir)/objects/$$program --benchmark_out_format=json \
	        --benchmark_out=$(bench_dir)/objects.$$program.$$rep.json >/dev/null || exit 1; \
	done; done

bench-build: $(bench_dir)/bench bench-objects-build
	@:

# Loops of some twenty instructions: where their branches lie must not decide. Intel's SKX102: what
# ends at a boundary of 32 bytes or lies across one is decoded anew each time. Elsewhere the padding
# only costs.
comma := ,
object_layout := $(if $(shell grep -E '^model\s*: (78|85|94|142|158|165|166)$$' /proc/cpuinfo),\
    -Wa$(comma)-mbranches-within-32B-boundaries)

# Small objects: a program for each allocator. NAME: adapter, library
objects := slab slab-sized buddy list-heap empty ideal ideal-owner glibc jemalloc mimalloc tcmalloc
object_slab := adapt_slab.h
object_slab-sized := adapt_slab.h -DOBJ_SLAB_SIZED
object_buddy := adapt_heap.h -DOBJ_BUDDY
object_list-heap := adapt_heap.h
object_empty := adapt_ideal.h -DOBJ_EMPTY
object_ideal := adapt_ideal.h
object_ideal-owner := adapt_ideal.h -DOBJ_IDEAL_OWNER
object_glibc := adapt_libc.h
object_jemalloc := adapt_libc.h -DOBJ_JEMALLOC
object_mimalloc := adapt_libc.h -DOBJ_MIMALLOC
object_tcmalloc := adapt_libc.h -DOBJ_TCMALLOC
libs_jemalloc := -ljemalloc
libs_mimalloc := -lmimalloc
libs_tcmalloc := -ltcmalloc

.PHONY: bench-objects bench-objects-build
bench-objects-build: $(objects:%=$(bench_dir)/objects/%)
	@:

$(objects:%=$(bench_dir)/objects/%): $(bench_dir)/objects/%: bench/objects/objects.c \
    bench/bench.mk $(bench_dir)/gbench.o
	@mkdir -p $(@D)
	@echo "  bench $@"
	$(Q)$(bench_cc) $(bench_flags) $(object_layout) -I bench/objects -DOBJ_ADAPTER='"$(firstword $(object_$*))"' \
	    $(wordlist 2,9,$(object_$*)) -MMD -MP -MF $@.d -MT $@ -c -o $@.o $<
	$(Q)g++ -o $@ $@.o $(bench_dir)/gbench.o $(libs_$*) -lbenchmark -lz -pthread

count: | deps-count ## count instructions of the hot paths with callgrind
	@$(MAKE) --no-print-directory count-build
	@python3 bench/count.py $(bench_dir)/count

count-record: | deps-count ## write the budgets of instructions that the tests hold
	@$(MAKE) --no-print-directory count-build
	@python3 bench/count.py $(bench_dir)/count --record bench/budgets.txt

count-build: $(bench_dir)/count $(bench_dir)/count-objects
	@:

$(bench_dir)/count-objects: bench/objects/count.c bench/bench.mk
	@mkdir -p $(@D)
	@echo "  bench $@"
	$(Q)$(bench_cc) $(bench_flags) -I bench/objects -DMM_SLAB_IMPLEMENTATION -MMD -MP -MF $@.d -o $@ $<

$(bench_dir)/bench: $(call bench_objects,$(bench_sources)) $(bench_rivals) $(bench_dir)/gbench.o
	@echo "  link  $@"
	$(Q)g++ -o $@ $^ $(foreach r,$(rivals),$(rival_libs_$(r))) -lbenchmark -lz -pthread

$(bench_dir)/count: $(call bench_objects,$(bench_common) $(wildcard bench/count*.c))
	@echo "  link  $@"
	$(Q)$(bench_cc) -o $@ $^ -pthread

$(bench_dir)/%.o: bench/%.c
	@mkdir -p $(@D)
	@echo "  bench $<"
	$(Q)$(bench_cc) $(bench_flags) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

$(bench_dir)/gbench.o: bench/gbench.cc bench/gbench.h
	@mkdir -p $(@D)
	@echo "  bench $<"
	$(Q)g++ -std=c++17 -O2 -Wall -Wextra -c -o $@ $<

$(bench_dir)/work_area.o: $(bench_rivals) # made anew with the first rivals

$(bench_dir)/rivals/%.o: bench/rivals/%.cc
	@mkdir -p $(@D)
	@echo "  bench $<"
	$(Q)g++ -std=gnu++17 -O2 -falign-functions=64 -falign-loops=64 -DNDEBUG -Wall -Wextra \
	    -isystem /usr/include/llvm-14 -isystem /usr/include/llvm-c-14 \
	    -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

-include $(wildcard $(bench_dir)/*.d $(bench_dir)/baseline/*.d $(bench_dir)/objects/*.d \
    $(bench_dir)/rivals/*.d)
